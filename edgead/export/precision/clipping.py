"""Clipping limit of a tensor, chosen from the histogram of its magnitudes.

A high limit clips nothing and rounds coarsely. A low limit rounds finely and clips. There are four published algorithms
to choose the limit. Histograms leave out exact zeros: zeros are exact at any scale, and rectifiers make so many of them
that they would dominate the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np

from edgead.types import Float32Array, Float64Array

Algorithm = Literal["minmax", "entropy", "percentile", "mse"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

BINS = 2048
LEVELS = 128
"""Number of magnitudes that INT8 can represent: 0 to 127."""

PERCENTILE = 99.99
"""Share of the magnitudes that `percentile` keeps, in per cent."""

_NEARLY_EMPTY = 1e-4

_STEP = 8
"""`entropy` and `mse` try every eighth bin as the limit, which is finer than an INT8 step at any limit."""


def magnitude_histogram(values: Float32Array, peak: float) -> Float64Array:
    """Count the magnitudes other than zero in `BINS` equal bins.

    Args:
        values: Values of a tensor, of any shape.
        peak: End of the last bin. The first bin begins at 0.

    Returns:
        Counts, (BINS,) float64.
    """
    magnitudes = np.abs(values[values != 0])
    return np.histogram(magnitudes, bins=BINS, range=(0.0, peak))[0].astype(np.float64)


def clipping_limit_from_histogram(counts: Float64Array, peak: float, algorithm: Algorithm) -> float:
    """Choose the clipping limit of a tensor.

    `minmax` chooses the peak. `percentile` chooses the end of the bin that contains the `PERCENTILE`th percentile.
    `mse` chooses the limit with the smallest mean squared error of rounding and clipping; every magnitude counts as the
    middle of its bin. `entropy` chooses the limit with the smallest Kullback-Leibler divergence of the quantised
    histogram from the clipped histogram (Migacz, "8-bit inference with TensorRT", GTC 2017).

    Args:
        counts: Histogram from `magnitude_histogram`, (BINS,) float64.
        peak: End of the last bin.
        algorithm: One of `ALGORITHMS`.

    Returns:
        The clipping limit; `peak` if the histogram is empty.
    """
    if not counts.any():
        return peak
    return peak * _CHOICES[algorithm](counts) / BINS


def _all_bins(counts: Float64Array) -> int:
    return BINS


def _percentile_bins(counts: Float64Array) -> int:
    cumulative = np.cumsum(counts)
    return int(np.searchsorted(cumulative, PERCENTILE / 100.0 * cumulative[-1])) + 1


def _candidates() -> range:
    return range(LEVELS, BINS + 1, _STEP)


def _mse_bins(counts: Float64Array) -> int:
    magnitudes = np.arange(BINS) + 0.5

    def error(bins: int) -> float:
        step = bins / (LEVELS - 1)
        kept = np.minimum(np.rint(magnitudes / step), LEVELS - 1) * step
        return float((counts * (kept - magnitudes) ** 2).sum())

    return min(_candidates(), key=error)


def _entropy_bins(counts: Float64Array) -> int:
    return min(_candidates(), key=lambda bins: divergence(counts, bins))


def divergence(counts: Float64Array, bins: int) -> float:
    """Compute the KL divergence of the quantised histogram from the clipped histogram, for one clipping limit.

    The clipped histogram counts clipped values in its last bin. The quantised histogram does not, so clipping costs.
    Each of its `LEVELS` levels is spread evenly over those bins of the level that are not empty. A bin that is empty
    only in the quantised histogram counts as `_NEARLY_EMPTY`, as in MXNet, so that one clipped outlier costs little
    instead of infinitely much.

    Args:
        counts: Histogram, (BINS,) float64, not all zero.
        bins: Clipping limit as a number of bins, LEVELS to BINS.

    Returns:
        The divergence in nats.
    """
    clipped = counts[:bins].copy()
    filled = clipped > 0
    # Bin i belongs to level floor(i LEVELS / bins), so that levels are as equal in width as whole bins allow.
    level = np.arange(bins) * LEVELS // bins
    mass = np.bincount(level, weights=clipped, minlength=LEVELS)
    spread = np.bincount(level, weights=filled.astype(np.float64), minlength=LEVELS)
    quantised = np.where(filled, (mass / np.maximum(spread, 1.0))[level], 0.0)
    clipped[-1] += counts[bins:].sum()
    held = clipped > 0
    p, q = clipped[held], np.maximum(quantised[held], _NEARLY_EMPTY)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


_CHOICES: Mapping[Algorithm, Callable[[Float64Array], int]] = {
    "minmax": _all_bins,
    "entropy": _entropy_bins,
    "percentile": _percentile_bins,
    "mse": _mse_bins,
}
