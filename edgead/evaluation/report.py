"""Report of an evaluation, as a page for people and as JSON for programs.

`report.html` holds everything in one file (images, charts, metrics), so it can be sent by mail. `results.json` holds
the same metrics and every score. Both are replaced atomically. Every heat map of a page has the same colour scale,
which the threshold sets, so two images can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgead import __version__
from edgead.evaluation.advice import advice
from edgead.evaluation.charts import histogram_chart, new_figure, roc_chart
from edgead.evaluation.dataset_scores import Scores, finite_scores, pixels_of
from edgead.evaluation.evaluate import Evaluation
from edgead.evaluation.explorer import Share, confusion, image_rows, score_plot
from edgead.evaluation.gallery import colour_legend, colour_scale, galleries
from edgead.evaluation.html import page_template
from edgead.evaluation.layers import image_layers
from edgead.files.atomic import replace_file
from edgead.files.parsing import json_text
from edgead.files.records import utc_now
from edgead.scoring import metrics
from edgead.scoring.decision import decide
from edgead.text import path_text, printable, shell_line

SCHEMA = 1


def write_report(
    directory: Path,
    evaluation: Evaluation,
    scores: Scores,
    details: Mapping[str, str],
    setter: Sequence[str] | None = None,
) -> Path:
    """Write `report.html` and `results.json`.

    Args:
        directory: Folder of the report; it is made if it is missing.
        evaluation: Metrics.
        scores: Scores and maps from which the metrics were computed. Their image files are read again for the page.
        details: Description of the model and the data: label to text, in the order of the page.
        setter: Arguments of the `edgead threshold` command of the model, without a rule, such as
            ("edgead", "threshold", "engines/my-parts"); None if the model is no bundle.

    Returns:
        Path of `report.html`.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
        ImageError: If an image file can no longer be read.
        EdgeadError: If the folder cannot be written.
    """
    template = page_template("report.html")
    rows, plot = image_rows(evaluation, scores), score_plot(evaluation, scores)
    page = template.render(
        version=__version__,
        created_at=utc_now(),
        details=details,
        evaluation=evaluation,
        advice=advice(evaluation, setter),
        setter=None if setter is None else shell_line(setter),
        plot=plot,
        shares=_shares(evaluation),
        groups=confusion(evaluation, rows),
        rows=rows,
        kinds=sorted({(row.kind_number, row.kind) for row in rows}),
        charts=score_charts(evaluation, scores, with_histogram=plot is None),
        galleries=galleries(scores, evaluation.threshold),
        layers=image_layers(scores, evaluation.threshold),
        scale=colour_scale(scores, evaluation.threshold),
        legend=colour_legend(),
        decision_sentence=decision_sentence,
        figure_text=figure_text,
    )
    results = json_text(results_json(evaluation, scores, details))
    with replace_file(directory / "results.json") as figures:
        figures.write_text(results, encoding="utf-8")
        # Inside of the other block, so that a full disk leaves no results.json without its page.
        with replace_file(directory / "report.html") as partial:
            partial.write_text(page, encoding="utf-8")
    return directory / "report.html"


def results_json(evaluation: Evaluation, scores: Scores, details: Mapping[str, str]) -> dict[str, Any]:
    """Return metrics and scores as plain JSON values.

    Args:
        evaluation: Metrics.
        scores: Scores from which the metrics were computed.
        details: Description of the model and the data, label to text.

    Returns:
        Content of `results.json`. A score that is not finite becomes None, and so does the decision on an
        image whose map or score is not finite.
    """
    threshold = evaluation.threshold
    images = [
        {
            "path": path_text(sample.path),
            "label": sample.label,
            "defect": path_text(sample.defect),
            "score": float(score) if np.isfinite(score) else None,
            "is_anomalous": None if threshold is None else decide(map_, float(score), threshold.value),
        }
        for sample, score, map_ in zip(scores.samples, scores.scores, scores.maps, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "edgead_version": __version__,
        "created_at": utc_now(),
        "details": dict(details),
        "evaluation": evaluation.to_json(),
        "images": images,
    }


def text_report(evaluation: Evaluation) -> str:
    """Return the metrics as a plain table for a terminal.

    Args:
        evaluation: Metrics.

    Returns:
        Text of several lines without a final line break.
    """
    lines = [] if evaluation.collapse is None else [f"FAILED: {evaluation.collapse}", ""]
    unlabelled = f", {evaluation.unlabelled} without a label" if evaluation.unlabelled else ""
    lines += [f"images           {evaluation.good} good, {evaluation.defect} defect{unlabelled}"]
    lines += [f"broken, left out   {len(evaluation.broken)}"] if evaluation.broken else []
    lines += ["", "                    image    pixel"]
    for name, image, pixel in (
        ("AUROC", evaluation.image_auroc, evaluation.pixel_auroc),
        ("average precision", evaluation.image_ap, evaluation.pixel_ap),
        ("F1-max", evaluation.image_f1_max, evaluation.pixel_f1_max),
    ):
        lines.append(f"{name:<17} {figure_text(image):>7}  {figure_text(pixel):>7}")
    lines += [f"{'AUPRO to 0.3':<17} {'':>7}  {figure_text(evaluation.aupro):>7}"]
    lines += [f"{'Dice at threshold':<17} {'':>7}  {figure_text(evaluation.dice):>7}"]
    if evaluation.defects:
        names = [printable(d.defect) for d in evaluation.defects]
        width = max(len("defect"), *map(len, names))
        lines += ["", f"{'defect':<{width}}  images  found    AUROC"]
        for d, name in zip(evaluation.defects, names, strict=True):
            found = "-" if d.found is None else d.found
            lines.append(f"{name:<{width}}  {d.images:>8}  {found:>5}  {figure_text(d.image_auroc):>7}")
    lines += ["", decision_sentence(evaluation)]
    lines += [f"no {what} figures: {why}" for what, why in evaluation.absent.items() if what != "decisions"]
    return "\n".join(lines)


def decision_sentence(evaluation: Evaluation) -> str:
    """Describe the decisions on these images in one sentence.

    Args:
        evaluation: Metrics.

    Returns:
        Sentence with the numbers of found defects and rejected good parts, or the reason why there are no decisions.
    """
    if evaluation.threshold is None or evaluation.misses is None:
        return f"no decisions: {evaluation.absent['decisions']}"
    found = evaluation.defect - evaluation.misses
    return (
        f"at the threshold {evaluation.threshold.value:.4g}, {found} of {evaluation.defect} defects are "
        f"found and {evaluation.false_alarms} of {evaluation.good} good parts rejected"
    )


def figure_text(value: float | None) -> str:
    """Format a metric with three decimals; a dash for None.

    Args:
        value: Metric, or None.

    Returns:
        Text such as "0.987".
    """
    return "-" if value is None else f"{value:.3f}"


def score_charts(
    evaluation: Evaluation, scores: Scores, with_histogram: bool = True
) -> list[tuple[str, str]]:
    """Draw every chart that the metrics allow: score histograms and ROC curves.

    Args:
        evaluation: Metrics.
        scores: Scores and maps from which the metrics were computed.
        with_histogram: Whether the page needs the histograms; the report shows a plot of its own in their place.

    Returns:
        Title and SVG text of each chart. The list is empty if a score or a map is not finite.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        ImageError: If a mask can no longer be read.
    """
    if not finite_scores(scores).all():
        return []
    labels = np.array([-1 if s.label is None else s.label for s in scores.samples])
    good, defect = scores.scores[labels == 0], scores.scores[labels == 1]
    charts = []
    if with_histogram and (len(good) or len(defect)):
        value = None if evaluation.threshold is None else evaluation.threshold.value
        charts.append(("Scores", histogram_chart(good, defect, value)))
    curves = []
    if evaluation.image_auroc is not None:
        x, y = metrics.roc_curve(scores.scores[labels >= 0], labels[labels >= 0])
        curves.append((f"images, area {evaluation.image_auroc:.3f}", x, y))
    if evaluation.pixel_auroc is not None:
        pixels, _ = pixels_of(scores)
        if pixels is not None:
            x, y = pixels.roc_curve()
            curves.append((f"pixels, area {evaluation.pixel_auroc:.3f}", x, y))
    if curves:
        charts.append(("ROC", roc_chart(curves)))
    return charts


def _shares(evaluation: Evaluation) -> dict[str, Share] | None:
    """Shares at the threshold that the explorer shows; None without decisions."""
    if evaluation.misses is None or evaluation.false_alarms is None:
        return None
    found = evaluation.defect - evaluation.misses
    return {
        "recall": Share(found, evaluation.defect),
        "false_alarms": Share(evaluation.false_alarms, evaluation.good),
        "precision": Share(found, found + evaluation.false_alarms),
    }


def check_report_packages() -> None:
    """Check before a long job that the packages of `write_report` are installed.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
    """
    page_template("report.html")
    new_figure()
