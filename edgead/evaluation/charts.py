"""Charts of a report: ROC curves and score histograms, as SVG text.

matplotlib is imported inside the functions, because a device does not have it. The figures are made without pyplot, so
they need no global state and no display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgead.errors import MissingExtraError
from edgead.types import Float32Array, Float64Array

# Readers with red-green blindness can distinguish these colours (palette of Okabe and Ito).
GOOD_COLOUR, DEFECT_COLOUR, INK = "#0072b2", "#d55e00", "#1f2933"
_CHANCE, _GRID = "#8b96a1", "#e4e8ec"
# Variables of page.css, so that a chart follows the light or dark mode of its page.
_VARIABLES = {GOOD_COLOUR: "good", DEFECT_COLOUR: "defect", INK: "ink", _CHANCE: "chance", _GRID: "grid"}
_CORNERS = 2000


def roc_chart(curves: Sequence[tuple[str, Float64Array, Float64Array]]) -> str:
    """Draw ROC curves.

    Args:
        curves: Label, false-positive rates and true-positive rates of each curve, at most two curves. Rates have the
            shape (K,) and rise from 0 to 1.

    Returns:
        SVG text.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=_CHANCE, linewidth=1, linestyle=(0, (4, 4)))
    for (label, x, y), colour in zip(curves, (DEFECT_COLOUR, GOOD_COLOUR), strict=False):
        # A pixel curve has a corner for every defect pixel. More corners than a screen shows only make the page large.
        shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CORNERS)).astype(int))
        axes.plot(x[shown], y[shown], color=colour, linewidth=2, label=label)
    axes.set(
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel="false-positive rate", ylabel="true-positive rate"
    )
    axes.legend(loc="lower right", frameon=False, labelcolor=INK)
    return _svg(figure)


def histogram_chart(good: Float32Array, defect: Float32Array, threshold: float | None) -> str:
    """Draw a histogram of the scores of good and defect images, with the threshold.

    Args:
        good: Finite scores of good images, float32 (N,). Either array may be empty, but not both.
        defect: Finite scores of defect images, float32 (N,).
        threshold: Threshold to draw as a vertical line; None for no line.

    Returns:
        SVG text.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, axes = new_figure()
    everything = np.concatenate([good, defect]).astype(np.float64)
    low, high = float(everything.min()), float(everything.max())
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    margin = max((high - low) * 0.03, abs(high) * 1e-3, 1e-12)
    edges = np.linspace(low - margin, high + margin, 41)
    for values, label, colour in ((good, "good", GOOD_COLOUR), (defect, "defect", DEFECT_COLOUR)):
        if len(values):
            name = f"{label} ({len(values)})"
            axes.hist(values.astype(np.float64), edges, color=colour, alpha=0.65, label=name)
    if threshold is not None:
        axes.axvline(
            threshold, color=INK, linewidth=1.5, linestyle=(0, (5, 3)), label=f"threshold {threshold:.4g}"
        )
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="anomaly score", ylabel="images")
    axes.legend(loc="best", frameon=False, labelcolor=INK)
    return _svg(figure)


def new_figure() -> tuple[Any, Any]:
    """Make an empty matplotlib figure.

    Returns:
        The figure and its axes.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "a report page") from error
    figure = Figure(figsize=(4.7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    """SVG element of a figure without a background, in the colours of its page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    drawing = text.getvalue()
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    # The XML declaration before the element is valid in an SVG file only, not inside of a page.
    return drawing[drawing.index("<svg") :]
