"""Rectangles that do not belong into an image, as certain synthetic defects of very different strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgead.types import UInt8Array

_NEAR = 64
"""A rectangle whose mean is at most this many grey levels from black, or from white, gets the opposite colour."""


def synthetic_defects(images: UInt8Array, seed: int = 0) -> UInt8Array:
    """Add a synthetic defect to a copy of every image. The defect is certain, but not realistic.

    The defect is a rectangle of 1/8 to 1/4 of each side. Its content takes turns, image by image:

    - another place of the image, as in CutPaste (Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection
      and Localization", CVPR 2021), with its colours inverted, so that it is visible on plain surfaces too;
    - black, as a hole, or white where it would be black already;
    - white, as a reflection, or black where it would be white already;
    - uniform noise.

    Args:
        images: Good images, (N, H, W, 3) uint8.
        seed: Seed of the places, sizes and noise.

    Returns:
        Copies with defects, (N, H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    defects: UInt8Array = images.copy()
    _, height, width, _ = images.shape
    for number, (image, defect) in enumerate(zip(images, defects, strict=True)):
        tall, wide = rng.integers(height // 8, height // 4 + 1), rng.integers(width // 8, width // 4 + 1)
        (y, to_y), (x, to_x) = rng.integers(0, height - tall + 1, 2), rng.integers(0, width - wide + 1, 2)
        covered = defect[to_y : to_y + tall, to_x : to_x + wide]
        covered[:] = _CONTENTS[number % len(_CONTENTS)](image[y : y + tall, x : x + wide], covered, rng)
    return defects


def _inverted(elsewhere: UInt8Array, covered: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return 255 - elsewhere


def _black(elsewhere: UInt8Array, covered: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return np.full_like(covered, 255 if covered.mean() <= _NEAR else 0)


def _white(elsewhere: UInt8Array, covered: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return np.full_like(covered, 0 if covered.mean() >= 255 - _NEAR else 255)


def _noise(elsewhere: UInt8Array, covered: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return rng.integers(0, 256, covered.shape, np.uint8)


_CONTENTS: tuple[Callable[[UInt8Array, UInt8Array, np.random.Generator], UInt8Array], ...] = (
    _inverted,
    _black,
    _white,
    _noise,
)
