"""Clipping limits from histograms: each algorithm against a slow implementation of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from edgead.export.precision.clipping import (
    ALGORITHMS,
    BINS,
    LEVELS,
    PERCENTILE,
    clipping_limit_from_histogram,
    divergence,
    magnitude_histogram,
)

CANDIDATES = range(LEVELS, BINS + 1, 8)


def samples(kind: str) -> np.ndarray:
    rng = np.random.default_rng(4)
    values = {
        "normal": rng.normal(0.0, 1.0, 60_000),
        "rectified": rng.normal(0.0, 1.0, 60_000).clip(0.0, None),
        "outlier": np.append(rng.normal(0.0, 1.0, 60_000), 80.0),
        "uniform": rng.uniform(-3.0, 3.0, 60_000),
    }[kind]
    return values.astype(np.float32)


KINDS = ("normal", "rectified", "outlier", "uniform")


def slow_divergence(counts: np.ndarray, bins: int) -> float:
    """Migacz's algorithm, bin by bin."""
    reference = [float(c) for c in counts[:bins]]
    quantised = [0.0] * bins
    levels: list[list[int]] = [[] for _ in range(LEVELS)]
    for i in range(bins):
        levels[i * LEVELS // bins].append(i)
    for inside in levels:
        filled = [i for i in inside if counts[i] > 0]
        for i in filled:
            quantised[i] = sum(float(counts[j]) for j in inside) / len(filled)
    reference[-1] += float(sum(counts[bins:]))
    quantised = [1e-4 if q == 0 < p else q for p, q in zip(reference, quantised, strict=True)]
    return float(entropy(reference, quantised))  # SciPy's, which normalises both


@pytest.mark.parametrize("bins", [128, 136, 1000, 2048])
@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_is_the_one_of_the_definition(kind: str, bins: int) -> None:
    values = samples(kind)
    counts = magnitude_histogram(values, float(np.abs(values).max()))
    assert divergence(counts, bins) == pytest.approx(slow_divergence(counts, bins), rel=1e-9)


def test_the_divergence_of_a_histogram_by_hand() -> None:
    # 256 bins form 128 levels of two bins. Only the first level is filled, with 1 and 3, and each becomes 2.
    counts = np.zeros(BINS)
    counts[:2] = 1.0, 3.0
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert divergence(counts, 256) == pytest.approx(expected)
    # Clipped values count in a bin that is empty in the quantised histogram.
    counts[2000] = 1.0
    p, q = np.array([1.0, 3.0, 1.0]) / 5.0, np.array([2.0, 2.0, 1e-4]) / 4.0001
    assert divergence(counts, 256) == pytest.approx(float((p * np.log(p / q)).sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_finds_the_smallest_divergence(kind: str) -> None:
    values = samples(kind)
    peak = float(np.abs(values).max())
    counts = magnitude_histogram(values, peak)
    slow = [slow_divergence(counts, bins) for bins in CANDIDATES]
    chosen = clipping_limit_from_histogram(counts, peak, "entropy")
    index = CANDIDATES.index(round(chosen / peak * BINS))
    assert slow[index] == pytest.approx(min(slow), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_mse_rounds_the_values_themselves_best(kind: str) -> None:
    values = samples(kind)
    peak = float(np.abs(values).max())

    def error(largest: float) -> float:
        step = largest / 127
        return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).mean())

    chosen = clipping_limit_from_histogram(magnitude_histogram(values, peak), peak, "mse")
    best = min(error(bins / BINS * peak) for bins in CANDIDATES)
    # The histogram resolves values only to a bin.
    assert error(chosen) <= best * 1.05


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_numpys_to_a_bin(kind: str) -> None:
    values = samples(kind)
    peak = float(np.abs(values).max())
    chosen = clipping_limit_from_histogram(magnitude_histogram(values, peak), peak, "percentile")
    expected = np.percentile(np.abs(values[values != 0]), PERCENTILE)
    assert chosen == pytest.approx(expected, abs=3 * peak / BINS)


def test_one_outlier_moves_minmax_most() -> None:
    values = samples("outlier")
    counts = magnitude_histogram(values, 80.0)
    assert clipping_limit_from_histogram(counts, 80.0, "minmax") == 80.0
    for algorithm, bound in (("percentile", 5.0), ("entropy", 20.0), ("mse", 70.0)):
        assert clipping_limit_from_histogram(counts, 80.0, algorithm) < bound, algorithm


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tensor_of_zeros_keeps_its_peak(algorithm: str) -> None:
    counts = magnitude_histogram(np.zeros(10, np.float32), 0.0)
    assert clipping_limit_from_histogram(counts, 0.0, algorithm) == 0.0


def test_zeros_are_not_counted_and_signs_do_not_matter() -> None:
    counts = magnitude_histogram(np.float32([0, 0, 0, -1.0, 1.0, 0.25]), 1.0)
    assert counts.sum() == 3
    assert counts[-1] == 2
    assert counts[BINS // 4] == 1
