"""The page of an evaluation: what people look at to decide whether a model is good enough.

`report.html` holds everything in one file (images, charts, figures), so it can be mailed; `results.json`
holds the same figures and every score for programs. Both are replaced whole or not at all. Every heat map of
a page has the same colour scale, set by the threshold, so two images can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgead import __version__
from edgead.evaluation.charts import histogram_chart, new_figure, roc_chart
from edgead.evaluation.evaluate import Evaluation, Scores, masks_of
from edgead.evaluation.gallery import colour_legend, colour_scale, galleries
from edgead.evaluation.html import page_template
from edgead.files.atomic import replace_file
from edgead.files.parsing import json_text
from edgead.files.records import utc_now
from edgead.scoring import metrics

SCHEMA = 1


def write_report(directory: Path, evaluation: Evaluation, scores: Scores, details: Mapping[str, str]) -> Path:
    """Write `report.html` and `results.json` into `directory`, made where missing; return the page's path.

    scores: those that `evaluation` was made from; their image files are read again for the galleries.
    details: what the page says of the model and the data, label to text, in order. Raises MissingExtraError
    without matplotlib and jinja2, ImageError for an image that cannot be read any more, EdgeadError when
    the place cannot be written.
    """
    page = page_template("report.html").render(
        version=__version__,
        created_at=utc_now(),
        details=details,
        evaluation=evaluation,
        charts=score_charts(evaluation, scores),
        galleries=galleries(scores, evaluation.threshold),
        scale=colour_scale(scores, evaluation.threshold),
        legend=colour_legend(),
        decision_sentence=decision_sentence,
        figure_text=figure_text,
    )
    results = json_text(results_json(evaluation, scores, details))
    with replace_file(directory / "results.json") as figures:
        figures.write_text(results, encoding="utf-8")
        # Within the other, so that a full disk leaves no figures without their page.
        with replace_file(directory / "report.html") as partial:
            partial.write_text(page, encoding="utf-8")
    return directory / "report.html"


def results_json(evaluation: Evaluation, scores: Scores, details: Mapping[str, str]) -> dict[str, Any]:
    """Give the figures and every score as plain JSON values; a score that is not finite becomes None."""
    threshold = evaluation.threshold
    images = [
        {
            "path": str(sample.path),
            "label": sample.label,
            "defect": sample.defect,
            "score": float(score) if np.isfinite(score) else None,
            "is_anomalous": None if threshold is None else bool(float(score) > threshold.value),
        }
        for sample, score in zip(scores.samples, scores.scores, strict=True)
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
    """Give the figures as a plain table for a terminal, without a final line break."""
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
        width = max(len("defect"), *(len(d.defect) for d in evaluation.defects))
        lines += ["", f"{'defect':<{width}}  images  found    AUROC"]
        for d in evaluation.defects:
            found = "-" if d.found is None else d.found
            lines.append(f"{d.defect:<{width}}  {d.images:>8}  {found:>5}  {figure_text(d.image_auroc):>7}")
    lines += ["", decision_sentence(evaluation)]
    lines += [f"no {what} figures: {why}" for what, why in evaluation.absent.items() if what != "decisions"]
    return "\n".join(lines)


def decision_sentence(evaluation: Evaluation) -> str:
    """Say what the threshold does on these images, or why there is none."""
    if evaluation.threshold is None or evaluation.misses is None:
        return f"no decisions: {evaluation.absent['decisions']}"
    found = evaluation.defect - evaluation.misses
    return (
        f"at the threshold {evaluation.threshold.value:.4g}, {found} of {evaluation.defect} defects are "
        f"found and {evaluation.false_alarms} of {evaluation.good} good parts rejected"
    )


def figure_text(value: float | None) -> str:
    """A metric with three places, a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def score_charts(evaluation: Evaluation, scores: Scores) -> list[tuple[str, str]]:
    """Give title and SVG of every chart that the figures allow: score histograms, ROC curves.

    Raises MissingExtraError without matplotlib.
    """
    if not np.isfinite(scores.scores).all() or not np.isfinite(scores.maps).all():
        return []
    labels = np.array([-1 if s.label is None else s.label for s in scores.samples])
    good, defect = scores.scores[labels == 0], scores.scores[labels == 1]
    charts = []
    if len(good) or len(defect):
        value = None if evaluation.threshold is None else evaluation.threshold.value
        charts.append(("Scores", histogram_chart(good, defect, value)))
    curves = []
    if evaluation.image_auroc is not None:
        x, y = metrics.roc_curve(scores.scores[labels >= 0], labels[labels >= 0])
        curves.append((f"images, area {evaluation.image_auroc:.3f}", x, y))
    if evaluation.pixel_auroc is not None:
        masks, _ = masks_of([s for s in scores.samples if s.label is not None], scores.maps.shape[1:])
        if masks is not None:
            x, y = metrics.roc_curve(scores.maps[labels >= 0], masks)
            curves.append((f"pixels, area {evaluation.pixel_auroc:.3f}", x, y))
    if curves:
        charts.append(("ROC", roc_chart(curves)))
    return charts


def check_report_packages() -> None:
    """Raise MissingExtraError now, before a long job, where `write_report` would raise it after."""
    page_template("report.html")
    new_figure()
