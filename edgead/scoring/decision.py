"""The rule of every decision: a score above the threshold is anomalous, if the score and the whole map are finite.

A model whose numbers overflow gives NaN or infinity somewhere. No comparison is true for NaN, so the part would pass as
good. The score can look right although the map does not: the maximum of some runtimes leaves NaN out. So stream,
`predict` and evaluation all decide here, and give no decision then.
"""

from __future__ import annotations

import numpy as np

from edgead.types import BoolArray, Float32Array

NOT_FINITE = "the anomaly map or the score is not finite"
"""Reason for a missing decision."""


def finite_images(maps: Float32Array, scores: Float32Array) -> BoolArray:
    """Find the images with numbers that a decision may rest on.

    Args:
        maps: Anomaly maps, (N, ...) float32.
        scores: Anomaly scores, (N,) float32.

    Returns:
        Whether the score and every value of the map are finite, (N,) bool.
    """
    finite: BoolArray = np.isfinite(scores) & np.isfinite(maps).reshape(len(scores), -1).all(axis=1)
    return finite


def decide(anomaly_map: Float32Array, score: float, threshold: float) -> bool | None:
    """Decide on one image.

    Args:
        anomaly_map: Anomaly map of any shape, float32.
        score: Anomaly score.
        threshold: Decision threshold, finite.

    Returns:
        Whether the image is anomalous; None if the map or the score is not finite.
    """
    if not (np.isfinite(score) and np.isfinite(anomaly_map).all()):
        return None
    return bool(score > threshold)
