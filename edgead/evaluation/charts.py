"""The drawings of a report: ROC curves and score histograms, as SVG text.

matplotlib is imported inside, for a device does not have it; its figures are made directly, without pyplot,
so that no global state and no display is touched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgead.errors import MissingExtraError
from edgead.types import Float32Array, Float64Array

# Told apart by people who do not see red and green alike (Okabe and Ito's palette).
GOOD_COLOUR, DEFECT_COLOUR, INK = "#0072B2", "#D55E00", "#1f2933"
_CORNERS = 2000


def roc_chart(curves: Sequence[tuple[str, Float64Array, Float64Array]]) -> str:
    """Draw ROC curves: (label, false-positive rates, true-positive rates) each, rates rising from 0 to 1.

    Returns SVG text. Raises MissingExtraError without matplotlib.
    """
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color="#b8c0c8", linewidth=1, linestyle=(0, (4, 4)))
    for (label, x, y), colour in zip(curves, (DEFECT_COLOUR, GOOD_COLOUR), strict=False):
        # A pixel curve has a corner for every defect pixel; more than a screen can show only makes the page
        # heavy.
        shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CORNERS)).astype(int))
        axes.plot(x[shown], y[shown], color=colour, linewidth=2, label=label)
    axes.set(
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel="false-positive rate", ylabel="true-positive rate"
    )
    axes.legend(loc="lower right", frameon=False)
    return _svg(figure)


def histogram_chart(good: Float32Array, defect: Float32Array, threshold: float | None) -> str:
    """Draw how many good and defect images have which score, with the threshold.

    good, defect: (N,) finite scores; one of them may be empty. Returns SVG text. Raises MissingExtraError
    without matplotlib.
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
    axes.legend(loc="best", frameon=False)
    return _svg(figure)


def new_figure() -> tuple[Any, Any]:
    """Give an empty matplotlib figure and its axes. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "a report page") from error
    figure = Figure(figsize=(4.7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    # The XML declaration before the element is for files of their own; inside a page only the element may
    # stand.
    return drawing[drawing.index("<svg") :]
