"""Rectangles that do not belong into an image, as certain synthetic defects of very different strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgead.types import UInt8Array

_NEAR = 48
"""A content that differs from what it covers by at most this many grey levels in the mean would be hard to see."""


def synthetic_defects(images: UInt8Array, seed: int = 0) -> UInt8Array:
    """Add a synthetic defect to a copy of every image. The defect is certain, but not realistic.

    The defect is a rectangle of 1/8 to 1/4 of each side. Each four images get the four kinds of content in a random
    order:

    - another place of the image, as in CutPaste (Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection
      and Localization", CVPR 2021), with its colours inverted;
    - black, as a hole;
    - white, as a reflection;
    - uniform noise.

    Where a content is near to what it covers, the rectangle is white on a dark place and black on a bright one.

    Args:
        images: Good images, (N, H, W, 3) uint8.
        seed: Seed of the places, sizes, order and noise.

    Returns:
        Copies with defects, (N, H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    defects: UInt8Array = images.copy()
    _, height, width, _ = images.shape
    order = rng.permutation(len(_CONTENTS))
    for number, (image, defect) in enumerate(zip(images, defects, strict=True)):
        if number and number % len(_CONTENTS) == 0:
            order = rng.permutation(len(_CONTENTS))
        tall, wide = (rng.integers(max(1, side // 8), side // 4 + 1) for side in (height, width))
        (y, to_y), (x, to_x) = rng.integers(0, height - tall + 1, 2), rng.integers(0, width - wide + 1, 2)
        covered = defect[to_y : to_y + tall, to_x : to_x + wide]
        content = _CONTENTS[order[number % len(_CONTENTS)]](image[y : y + tall, x : x + wide], rng)
        if np.abs(content.astype(np.int16) - covered).mean() <= _NEAR:
            content = np.full_like(covered, 255 if covered.mean() < 127.5 else 0)
        covered[:] = content
    return defects


def _inverted(elsewhere: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return 255 - elsewhere


def _black(elsewhere: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return np.zeros_like(elsewhere)


def _white(elsewhere: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return np.full_like(elsewhere, 255)


def _noise(elsewhere: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    return rng.integers(0, 256, elsewhere.shape, np.uint8)


_CONTENTS: tuple[Callable[[UInt8Array, np.random.Generator], UInt8Array], ...] = (
    _inverted,
    _black,
    _white,
    _noise,
)
