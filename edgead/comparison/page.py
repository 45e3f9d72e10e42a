"""Files of a comparison for people and programs: `index.html`, `compare.md` and `compare.json`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgead import __version__
from edgead.comparison.figures import Baseline, Comparison, Spread, Summary
from edgead.evaluation.charts import INK, new_figure
from edgead.evaluation.html import data_uri, page_template
from edgead.files.atomic import replace_file
from edgead.files.parsing import write_json
from edgead.files.records import utc_now
from edgead.text import path_text, printable

SCHEMA = 1

# Heading and number format of each column.
COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "image_auroc": ("image AUROC", "{:.3f}".format),
    "pixel_auroc": ("pixel AUROC", "{:.3f}".format),
    "aupro": ("AUPRO to 0.3", "{:.3f}".format),
    "image_f1_max": ("F1-max", "{:.3f}".format),
    "parameters": ("parameters, M", lambda value: f"{value / 1e6:.2f}"),
    "gflop": ("GFLOP", "{:.2f}".format),
    "model_bytes": ("model, MB", lambda value: f"{value / 1e6:.1f}"),
    "latency_ms": ("latency, ms", "{:.1f}".format),
    "training_minutes": ("training, min", "{:.2f}".format),
}

NOTES = (
    "Mean ± sample standard deviation over the seeds that are done. A collapsed or failed seed is named and is in no "
    "mean. Accuracy is measured with the bundles, on test images that neither the training nor the threshold used.",
    "Parameters and GFLOP are counted from the built graph: convolutions and matrix products, including the anomaly "
    "map, 2 for each multiply-add, one image.",
    "Latency: median wall time of 30 single images on ONNX Runtime with all cores of the machine named above, from "
    "pixels at the model's size to map and score. Reading and resizing the image are not included; other work on the "
    "machine is.",
    "Training: wall time of the epochs on the training machine, without reading images and computing the teacher's "
    "features.",
    "Nearest mean: a baseline that learns only the mean of the teacher's features over the good training images, at "
    "every position. The score is the cosine distance from this mean, with the map of Reverse Distillation. It has no "
    "seed, and no graph is built.",
)

# Readers with red-green blindness can distinguish these colours (palette of Okabe and Ito); shapes differ too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_SHAPES = "osD^vP*X<>"


@dataclass(frozen=True, slots=True)
class _Table:
    """Table of one dataset as text.

    Attributes:
        dataset: Name of the dataset.
        rows: Name of a method or the baseline, and a text for each of COLUMNS.
        problems: One line for each cell or baseline that collapsed or failed.
        chart: Data URI of the chart, or None.
        reports: Name of each report and its address relative to the page.
    """

    dataset: str
    rows: Sequence[tuple[str, Sequence[str]]]
    problems: Sequence[str]
    chart: str | None
    reports: Sequence[tuple[str, str]]


def write_comparison(comparison: Comparison) -> Path:
    """Write all three files into the folder of the comparison, each one atomically.

    Args:
        comparison: Results of all cells and baselines.

    Returns:
        Path of the page.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
        EdgeadError: If the folder cannot be written.
    """
    out, tables = comparison.grid.out, [_table(comparison, name) for name in comparison.grid.datasets]
    facts = {
        "trained with": " ".join(f"--{k} {v}" for k, v in comparison.grid.options.items()) or "the defaults",
        "seeds": ", ".join(str(seed) for seed in range(comparison.grid.seeds)),
        "training in": ", ".join(sorted({r.precision for r in comparison.results if r.precision})) or "-",
        "latency on": comparison.machine,
        "made": f"{utc_now()} by edgead {__version__}",
    }
    page = page_template("compare.html").render(
        facts=facts, tables=tables, headings=[heading for heading, _ in COLUMNS.values()], notes=NOTES
    )
    write_json(out / "compare.json", comparison_json(comparison))
    for name, text in (("compare.md", _markdown(facts, tables)), ("index.html", page)):
        with replace_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return out / "index.html"


def comparison_text(comparison: Comparison) -> str:
    """Return the tables of all datasets as text for a terminal.

    Args:
        comparison: Results of all cells and baselines.

    Returns:
        Text of several lines; collapsed and failed cells are listed below each table.
    """
    blocks = []
    for dataset in comparison.grid.datasets:
        rows = [("method", [heading for heading, _ in COLUMNS.values()]), *_rows(comparison, dataset)]
        widths = [max(len(row[column]) for _, row in rows) for column in range(len(COLUMNS))]
        first = max(len(name) for name, _ in rows)
        lines = [
            f"  {name:<{first}}  "
            + "  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True))
            for name, row in rows
        ]
        blocks.append("\n".join([dataset, *lines, *(f"  {line}" for line in _problems(comparison, dataset))]))
    return "\n\n".join(blocks)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return all cells, summaries and baselines as plain JSON values.

    Args:
        comparison: Results of all cells and baselines.

    Returns:
        Content of `compare.json`. Units: bytes, milliseconds, minutes, GFLOP.
    """
    grid = comparison.grid
    return {
        "schema": SCHEMA,
        "edgead_version": __version__,
        "machine": comparison.machine,
        "datasets": dict(grid.datasets),
        "options": {name: path_text(value) for name, value in grid.options.items()},
        "cells": [
            {
                "dataset": result.cell.dataset,
                "method": result.cell.method,
                "seed": result.cell.seed,
                "state": result.state,
                "reason": result.reason,
                "precision": result.precision,
                **result.figures,
            }
            for result in comparison.results
        ],
        "baselines": [
            {"dataset": baseline.dataset, "reason": baseline.reason, **baseline.figures}
            for baseline in comparison.baselines
        ],
        "summaries": [asdict(summary) for summary in comparison.summaries],
    }


def tradeoff_chart(summaries: Sequence[Summary], baseline: float | None) -> bytes | None:
    """Draw image AUROC against GFLOP: a point for each method and a line for the baseline.

    Args:
        summaries: Summaries of the methods on one dataset.
        baseline: Image AUROC of the baseline, or None.

    Returns:
        Content of a PNG file, or None if no method has both figures.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, axes = new_figure()
    figure.set_size_inches(7.4, 3.6)
    drawn = False
    for index, summary in enumerate(summaries):
        auroc, gflop = summary.figures["image_auroc"], summary.figures["gflop"]
        if auroc is None or gflop is None:
            continue
        drawn = True
        axes.errorbar(
            gflop.mean,
            auroc.mean,
            yerr=auroc.deviation,
            fmt=_SHAPES[index % len(_SHAPES)],
            color=_COLOURS[index % len(_COLOURS)],
            markersize=8,
            capsize=4,
            label=summary.method,
        )
    if not drawn:
        return None
    if baseline is not None:
        axes.axhline(baseline, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), label="nearest mean")
    axes.set(xlabel="GFLOP of one image", ylabel="image AUROC, mean ± deviation")
    axes.set_xlim(left=0)
    axes.margins(x=0.1, y=0.15)
    figure.legend(loc="outside right upper", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=160, metadata={"Software": None})
    return content.getvalue()


def _table(comparison: Comparison, dataset: str) -> _Table:
    """Table of one dataset."""
    summaries = [summary for summary in comparison.summaries if summary.dataset == dataset]
    (baseline,) = [found for found in comparison.baselines if found.dataset == dataset]
    chart = tradeoff_chart(summaries, baseline.figures.get("image_auroc"))
    return _Table(
        dataset,
        _rows(comparison, dataset),
        _problems(comparison, dataset),
        None if chart is None else data_uri("image/png", chart),
        _reports(comparison, dataset),
    )


def _rows(comparison: Comparison, dataset: str) -> list[tuple[str, list[str]]]:
    """Rows of the methods and the baseline, with a text for each of COLUMNS."""
    summaries = [summary for summary in comparison.summaries if summary.dataset == dataset]
    baselines = [found for found in comparison.baselines if found.dataset == dataset]
    return [*map(_summary_row, summaries), *map(_baseline_row, baselines)]


def _problems(comparison: Comparison, dataset: str) -> list[str]:
    """One line for each collapsed or failed cell and for a failed baseline."""
    problems = [
        f"{result.cell} {result.state}: {result.reason}"
        for result in comparison.results
        if result.cell.dataset == dataset and result.state != "done"
    ]
    failed = [
        found for found in comparison.baselines if found.dataset == dataset and found.reason is not None
    ]
    return [*problems, *(f"nearest mean failed: {baseline.reason}" for baseline in failed)]


def _reports(comparison: Comparison, dataset: str) -> list[tuple[str, str]]:
    """Names of the existing reports and their addresses, quoted and relative to the page."""
    out = comparison.grid.out
    folders = {
        f"{result.cell.method} seed {result.cell.seed}": result.cell.folder / "report"
        for result in comparison.results
        if result.cell.dataset == dataset
    }
    folders["nearest mean"] = out / "baseline" / dataset
    pages = {name: folder / "report.html" for name, folder in folders.items()}
    return [(name, quote(page.relative_to(out).as_posix())) for name, page in pages.items() if page.is_file()]


def _summary_row(summary: Summary) -> tuple[str, list[str]]:
    """Row of a method; its name includes the numbers of collapsed and failed seeds."""
    lost = [
        f"{count} {what}"
        for count, what in ((summary.collapsed, "collapsed"), (summary.failed, "failed"))
        if count
    ]
    name = f"{summary.method} ({', '.join(lost)})" if lost else summary.method
    return name, [_spread_text(summary.figures[key], text) for key, (_, text) in COLUMNS.items()]


def _baseline_row(baseline: Baseline) -> tuple[str, list[str]]:
    """Row of the nearest mean."""
    known = {name: value for name, value in baseline.figures.items() if value is not None}
    return "nearest mean", [text(known[key]) if key in known else "-" for key, (_, text) in COLUMNS.items()]


def _spread_text(spread: Spread | None, text: Callable[[float], str]) -> str:
    """Text of mean and deviation, if it is not 0; a dash for None."""
    if spread is None:
        return "-"
    return text(spread.mean) + (f" ± {text(spread.deviation)}" if spread.deviation else "")


def _markdown(facts: Mapping[str, str], tables: Sequence[_Table]) -> str:
    """Content of `compare.md`."""
    lines = ["# Comparison of methods", "", *(printable(f"- {name}: {text}") for name, text in facts.items())]
    for table in tables:
        lines += [
            "",
            f"## {table.dataset}",
            "",
            _line(["method", *(heading for heading, _ in COLUMNS.values())]),
        ]
        lines += [
            "|---" * (len(COLUMNS) + 1) + "|",
            *(_line([name, *figures]) for name, figures in table.rows),
        ]
        lines += ["", *(f"- {problem}" for problem in table.problems)] if table.problems else []
    return "\n".join([*lines, "", *(f"{note}\n" for note in NOTES)])


def _line(cells: Sequence[str]) -> str:
    """Line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
