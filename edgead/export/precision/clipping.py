"""The range of a tensor from the histogram of its magnitudes: where to clip so that INT8 keeps what matters.

A wide range clips nothing and rounds coarsely, a narrow one rounds finely and clips: four published ways to choose.
Exact zeros are left out of every histogram, because they are exact at any scale and a rectifier makes so many
that they would decide alone.
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
"""Magnitudes that INT8 tells apart: 0 to 127."""

PERCENTILE = 99.99
"""Share in per cent of the magnitudes that `percentile` keeps."""

_NEARLY_EMPTY = 1e-4

_STEP = 8
"""`entropy` and `mse` try every eighth bin as the end of the range: finer than an INT8 step at any of them."""


def magnitude_histogram(values: Float32Array, peak: float) -> Float64Array:
    """Count the magnitudes other than zero in `BINS` equal bins from 0 to `peak`; returns (BINS,) float64."""
    magnitudes = np.abs(values[values != 0])
    return np.histogram(magnitudes, bins=BINS, range=(0.0, peak))[0].astype(np.float64)


def clipping_limit_from_histogram(counts: Float64Array, peak: float, algorithm: Algorithm) -> float:
    """Choose the clipping limit of a tensor.

    counts: (BINS,) of `magnitude_histogram`. peak: end of the last bin. algorithm: `minmax` is the peak;
    `percentile` the end of the bin that holds the `PERCENTILE`th; `mse` the range with the smallest mean
    square error of rounding and clipping, every magnitude taken at the middle of its bin; `entropy` the one
    with the smallest Kullback-Leibler divergence of the quantised histogram from the clipped one (Migacz, "8-bit
    inference with TensorRT", GTC 2017). Returns `peak` for a tensor without counts.
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
    """KL divergence of a histogram quantised to `LEVELS` levels over its first bins, from it clipped there.

    counts: (BINS,), not all zero. bins: from LEVELS to BINS. What is clipped counts in the last bin of the clipped
    histogram, not of the quantised one, so that clipping costs; each level is spread evenly over those of its
    bins that are not empty. A bin that is empty in the quantised histogram alone counts as `_NEARLY_EMPTY` there,
    as MXNet smooths it, because one clipped outlier should cost little and not infinitely much.
    """
    clipped = counts[:bins].copy()
    filled = clipped > 0
    # Bin i belongs to level floor(i LEVELS / bins): levels as equal in width as whole bins allow.
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
