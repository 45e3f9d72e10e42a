"""Chart of a benchmark, as an image file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgead.errors import needs_extra
from edgead.files.atomic import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from edgead.benchmark.report import Report

_COLOURS = ("#0072b2", "#d55e00")


def draw_chart(reports: dict[str, Report], file: Path) -> None:
    """Draw the clocks of one report or two: a bar from median to 99th percentile, a dot for the median of each round.

    Args:
        reports: Reports by their labels, the older one first.
        file: PNG file to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        EdgeadError: If the file cannot be written.
    """
    with needs_extra("train", "a chart"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    names = list(next(iter(reports.values())).clocks)
    figure = Figure(figsize=(7, 1.2 + 0.55 * len(names) * len(reports)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for shift, ((label, report), colour) in enumerate(zip(reports.items(), _COLOURS, strict=False)):
        for row, name in enumerate(names):
            clock = report.clocks[name]
            y = row + 0.3 * (shift - (len(reports) - 1) / 2)
            axes.plot(
                [clock.p50_ms, clock.p99_ms],
                [y, y],
                color=colour,
                linewidth=6,
                alpha=0.35,
                solid_capstyle="butt",
            )
            dots = clock.round_p50_ms
            axes.plot(
                dots, [y] * len(dots), "o", color=colour, markersize=5, label=label if row == 0 else None
            )
    axes.set_yticks(range(len(names)), names)
    axes.set(
        xlabel="ms: dots are medians of rounds, bars go from the median to the 99th percentile",
        ylim=(len(names) - 0.4, -0.6),
    )
    axes.set_xlim(left=0)
    axes.grid(visible=True, axis="x", alpha=0.3)
    if len(reports) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    with replace_file(file) as partial:
        partial.write_bytes(content.getvalue())
