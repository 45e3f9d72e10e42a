"""How far two sessions are apart on the same images: what verifies a build and an engine at its start.

Works on the `Session` protocol alone, so a trained run, a graph and an engine are compared by the same code.
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
from edgead.types import Float32Array, Prediction, UInt8Array

# Images scored at once. A score may differ in its last bit from one batch to another, so whoever compares or sets a
# threshold cuts the same images into the same batches.
BATCH = 8

AT_THRESHOLD = 0.02
"""A score within this share of the threshold is at it: runtimes of one INT8 graph do not round alike."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far another session is from the reference on n images.

    map_error_max, score_error_max: largest differences, each as a share of the threshold, or of what the reference
    gives there where that is more: far above the threshold nothing is decided, and maps that are products of scales
    reach a hundred times it. rank_correlation: Spearman's, of the scores; None for fewer than two images or constant
    scores. decision_flips: images on the other side of the threshold.
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
) -> Fidelity:
    """Score the same images with two sessions and measure how far they are apart.

    images: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. threshold: decides for both, or for the
    reference alone where the other has a threshold of its own. A number that is not finite makes the error
    infinite. Raises DataError for no images, and what `Session.infer` raises.
    """
    if not len(images):
        raise DataError("no images to compare two sessions on: give 1 or more")
    map_error = 0.0
    first, second = [], []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        a, b = reference.infer(batch), other.infer(batch)
        map_error = max(map_error, _error(a.anomaly_map, b.anomaly_map, threshold))
        first.append(a.anomaly_score)
        second.append(b.anomaly_score)
    return _fidelity(map_error, np.concatenate(first), np.concatenate(second), threshold, other_threshold)


def fidelity_of(reference: Prediction, other: Prediction, threshold: float) -> Fidelity:
    """Measure how far two predictions of the same images are apart; threshold: decides for both.

    An image that the reference scores at the threshold, within `AT_THRESHOLD`, counts as no flip: one of them may be
    what the threshold was set on, and only rounding decides on it.
    """
    fidelity = _fidelity(
        _error(reference.anomaly_map, other.anomaly_map, threshold),
        reference.anomaly_score,
        other.anomaly_score,
        threshold,
        None,
    )
    x, y = reference.anomaly_score.astype(np.float64), other.anomaly_score.astype(np.float64)
    flipped = ((x > threshold) != (y > threshold)) & ~(np.abs(x - threshold) <= AT_THRESHOLD * threshold)
    return replace(fidelity, decision_flips=int(flipped.sum()))


def golden_fidelity(
    golden: Golden, session: Session, thresholds: Mapping[str, Threshold]
) -> dict[str, Fidelity]:
    """Measure, part by part, how far a session is from golden answers; raises what `Session.infer` raises.

    thresholds: of the bundle that the answers are of; it has golden images of each part.
    """
    fidelities = {}
    for number, (part, threshold) in enumerate(thresholds.items()):
        of_part = golden.part == number
        expected = Prediction(golden.anomaly_map[of_part], golden.anomaly_score[of_part])
        fidelities[part] = fidelity_of(expected, session.infer(golden.images[of_part]), threshold.value)
    return fidelities


def _fidelity(
    map_error: float,
    first: Float32Array,
    second: Float32Array,
    threshold: float,
    other_threshold: float | None,
) -> Fidelity:
    # In float64, so that the threshold is not rounded before it is compared.
    x, y = first.astype(np.float64), second.astype(np.float64)
    finite = bool(np.isfinite(x).all() and np.isfinite(y).all())
    return Fidelity(
        map_error_max=map_error,
        score_error_max=_error(first, second, threshold),
        rank_correlation=metrics.rank_correlation(x, y) if finite else None,
        decision_flips=int(
            ((x > threshold) != (y > (threshold if other_threshold is None else other_threshold))).sum()
        ),
        n=len(x),
    )


def _error(reference: Float32Array, other: Float32Array, threshold: float) -> float:
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return float("inf")
    a, b = reference.astype(np.float64), other.astype(np.float64)
    # What is compared with a threshold of zero may be zero too.
    scale = np.maximum(np.maximum(np.abs(a), threshold), np.finfo(np.float32).tiny)
    return float((np.abs(a - b) / scale).max())
