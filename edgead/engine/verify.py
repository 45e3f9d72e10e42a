"""Does what was built decide as the model it was built from?

Compared on real pictures, not on noise: the held-out good ones, and a damaged twin of each. Good pictures
alone would prove nothing about decisions, because hardly one of them is near the threshold and none is above
it.
"""

from __future__ import annotations

import numpy as np

from edgead.errors import VerificationError
from edgead.evaluate import Agreement, compare_sessions
from edgead.runtime.base import Session
from edgead.types import UInt8Array

MAP_TOLERANCE = 1e-4
"""Largest difference allowed between two float32 anomaly maps of one picture."""


def damaged_twins(images: UInt8Array, seed: int = 0) -> UInt8Array:
    """Give every picture a defect that is there for certain, though not one that a line would see.

    images: (N, H, W, 3) uint8; returns as many of the same shape. A rectangle of 1/8 to 1/4 of each side is
    copied from one place of the picture to another, as in CutPaste (Li et al., "CutPaste: Self-Supervised
    Learning for Anomaly Detection and Localization", CVPR 2021), with its colours inverted so that it shows
    on plain surfaces too.
    """
    rng = np.random.default_rng(seed)
    twins: UInt8Array = images.copy()
    _, height, width, _ = images.shape
    for image, twin in zip(images, twins, strict=True):
        tall, wide = rng.integers(height // 8, height // 4 + 1), rng.integers(width // 8, width // 4 + 1)
        (y, to_y), (x, to_x) = rng.integers(0, height - tall + 1, 2), rng.integers(0, width - wide + 1, 2)
        twin[to_y : to_y + tall, to_x : to_x + wide] = 255 - image[y : y + tall, x : x + wide]
    return twins


def verify(reference: Session, built: Session, images: UInt8Array, threshold: float) -> Agreement:
    """Compare what was built with its reference, and refuse it where they differ.

    images: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. threshold: decides between good and defect for
    both. Returns how near they are. Raises VerificationError when a map differs by more than `MAP_TOLERANCE`
    or one decision flips, and what `Session.infer` raises.
    """
    agreement = compare_sessions(reference, built, images, threshold)
    # Written so that a difference that is not a number fails too.
    if not agreement.map_error_max <= MAP_TOLERANCE or agreement.decision_flips:
        raise VerificationError(
            f"what was built does not decide as the model: on {agreement.n} pictures the maps differ by up "
            f"to {agreement.map_error_max:.2g} (allowed: {MAP_TOLERANCE:.2g}) and {agreement.decision_flips} "
            "decisions flip; nothing was written: try other versions of torch and onnxruntime, which "
            "'edgead doctor' shows"
        )
    return agreement
