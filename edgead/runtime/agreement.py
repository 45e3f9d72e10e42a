"""The comparison of two sessions on the same images, which verifies a build and every session at its start.

It works on the `Session` protocol alone, so a trained run, a graph and an engine are compared by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgead.bundle.golden import Golden
from edgead.errors import DataError
from edgead.runtime.base import Session
from edgead.scoring import metrics
from edgead.scoring.threshold import Threshold
from edgead.types import Float32Array, Float64Array, Prediction, UInt8Array

# Images scored at once. The last bit of a score may depend on the batch that the image is in, so all code that
# compares sessions or sets a threshold cuts the same images into the same batches.
BATCH = 8

AT_THRESHOLD = 0.02
"""Relative distance within which a score is at the threshold: runtimes of one INT8 graph round differently."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The distance of a session from a reference session on n images.

    Errors are relative: abs(a - b) / max(abs(a), threshold), where a is the value of the reference. Far above the
    threshold small differences decide nothing.

    For a map that multiplies K scales, a, b and the threshold are the roots of degree K of its values: their geometric
    mean. The root keeps every decision and every rank, and its relative error has the size of the error of one scale,
    as in a sum. The error of the product is about K times as large, although the decisions are the same.

    Attributes:
        map_error_max: Largest relative error of a pixel of the anomaly maps.
        score_error_max: Largest relative error of an anomaly score.
        rank_correlation: Spearman's rank correlation of the scores; None for fewer than two images, for constant scores
            or for scores that are not finite.
        decision_flips: Number of images that the two sessions put on different sides of the threshold.
        n: Number of images.
    """

    map_error_max: float
    score_error_max: float
    rank_correlation: float | None
    decision_flips: int
    n: int


def compare_sessions(
    reference: Session,
    other: Session,
    images: UInt8Array,
    threshold: float,
    batch_size: int = BATCH,
    other_threshold: float | None = None,
    factors: int = 1,
) -> Fidelity:
    """Score the same images with two sessions and measure how far the answers are apart.

    Args:
        reference: Session that gives the expected answers.
        other: Session to compare with it.
        images: (N, H, W, 3) uint8 RGB at the size of both models, N >= 1.
        threshold: Decision threshold, at least 0.
        batch_size: Number of images that are scored at once.
        other_threshold: Decision threshold of the other session; None for the same one.
        factors: Number K of scales that the maps multiply, for errors of their root, see `Fidelity`; 1 for maps that
            add their scales.

    Returns:
        The fidelity of the other session. An answer that is not a finite number makes its error infinite.

    Raises:
        DataError: If there are no images.
        InputError: If the images do not fit a model.
        BackendError: If a session fails or is closed.

    Example:
        >>> import edgead, numpy
        >>> bright = edgead.FakeSession(edgead.ModelSize(64, 64), score=0.9)
        >>> dark = edgead.FakeSession(edgead.ModelSize(64, 64), score=0.3)
        >>> images = numpy.full((4, 64, 64, 3), 128, numpy.uint8)
        >>> fidelity = edgead.compare_sessions(bright, dark, images, threshold=0.5)
        >>> fidelity.decision_flips, fidelity.n
        (4, 4)
        >>> round(fidelity.score_error_max, 3)
        0.667
    """
    if not len(images):
        raise DataError("no images to compare two sessions on", hint="give 1 or more")
    map_error = 0.0
    first, second = [], []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        a, b = reference.infer(batch), other.infer(batch)
        map_error = max(map_error, _error(a.anomaly_map, b.anomaly_map, threshold, factors))
        first.append(a.anomaly_score)
        second.append(b.anomaly_score)
    return _fidelity(
        map_error, np.concatenate(first), np.concatenate(second), threshold, other_threshold, factors
    )


def fidelity_of(reference: Prediction, other: Prediction, threshold: float, factors: int = 1) -> Fidelity:
    """Measure how far two predictions of the same images are apart.

    An image that the reference scores at the threshold, within `AT_THRESHOLD`, counts as no flip. The threshold may
    have been set on that image, and then only rounding decides on it.

    Args:
        reference: Expected prediction.
        other: Prediction of the other session for the same images.
        threshold: Decision threshold of both.
        factors: Number of scales that the maps multiply, see `compare_sessions`.

    Returns:
        The fidelity of the other prediction.
    """
    fidelity = _fidelity(
        _error(reference.anomaly_map, other.anomaly_map, threshold, factors),
        reference.anomaly_score,
        other.anomaly_score,
        threshold,
        None,
        factors,
    )
    x, y = reference.anomaly_score.astype(np.float64), other.anomaly_score.astype(np.float64)
    flipped = ((x > threshold) != (y > threshold)) & ~(np.abs(x - threshold) <= AT_THRESHOLD * threshold)
    return replace(fidelity, decision_flips=int(flipped.sum()))


def golden_fidelity(
    golden: Golden, session: Session, thresholds: Mapping[str, Threshold], factors: Mapping[str, int]
) -> dict[str, Fidelity]:
    """Measure, part by part, how far a session is from golden answers.

    Args:
        golden: Golden images and answers of a bundle.
        session: Session to compare with them.
        thresholds: Decision threshold of each part of the bundle, by name, in the order of the golden part numbers.
            Each part has golden images.
        factors: Number of scales that the maps multiply, see `compare_sessions`, by part.

    Returns:
        The fidelity of each part, by name.

    Raises:
        InputError: If the golden images do not fit the model.
        BackendError: If the session fails or is closed.
    """
    fidelities = {}
    for number, (part, threshold) in enumerate(thresholds.items()):
        of_part = golden.part == number
        expected = Prediction(golden.anomaly_map[of_part], golden.anomaly_score[of_part])
        # One by one, as a stream gives them: a batch would take memory that the process keeps to its end.
        answers = [session.infer(image[None]) for image in golden.images[of_part]]
        found = Prediction(
            np.concatenate([answer.anomaly_map for answer in answers]),
            np.concatenate([answer.anomaly_score for answer in answers]),
        )
        fidelities[part] = fidelity_of(expected, found, threshold.value, factors[part])
    return fidelities


def _fidelity(
    map_error: float,
    first: Float32Array,
    second: Float32Array,
    threshold: float,
    other_threshold: float | None,
    factors: int,
) -> Fidelity:
    """Summarise the scores of the reference (first) and of the other session (second), both (N,)."""
    # In float64, so that the threshold is not rounded before it is compared.
    x, y = first.astype(np.float64), second.astype(np.float64)
    finite = bool(np.isfinite(x).all() and np.isfinite(y).all())
    return Fidelity(
        map_error_max=map_error,
        score_error_max=_error(first, second, threshold, factors),
        rank_correlation=metrics.rank_correlation(x, y) if finite else None,
        decision_flips=int(
            ((x > threshold) != (y > (threshold if other_threshold is None else other_threshold))).sum()
        ),
        n=len(x),
    )


def _error(reference: Float32Array, other: Float32Array, threshold: float, factors: int) -> float:
    """Return the largest relative error of arrays of the same shape; infinity if a value is not finite."""
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return float("inf")
    a, b = (root(values.astype(np.float64), factors) for values in (reference, other))
    # A threshold below zero, which has no root, is below every magnitude. Threshold and reference may both be zero.
    least = max(threshold, 0.0) ** (1.0 / factors)
    scale = np.maximum(np.maximum(np.abs(a), least), np.finfo(np.float32).tiny)
    return float((np.abs(a - b) / scale).max())


def root(values: Float64Array, degree: int) -> Float64Array:
    """Return the root of each value with the sign of the value: rounding can make a distance of 0 negative.

    Args:
        values: Any values, float64.
        degree: Degree of the root, at least 1.
    """
    if degree == 1:
        return values
    roots: Float64Array = np.sign(values) * np.abs(values) ** (1.0 / degree)
    return roots
