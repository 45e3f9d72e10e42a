"""CutPaste: a rectangle of an image pasted at another place of the image, as a certain synthetic defect."""

from __future__ import annotations

import numpy as np

from edgead.types import UInt8Array


def synthetic_defects(images: UInt8Array, seed: int = 0) -> UInt8Array:
    """Add a synthetic defect to a copy of every image. The defect is certain, but not realistic.

    A rectangle of 1/8 to 1/4 of each side is copied from one place of the image to another, as in CutPaste (Li et al.,
    "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021). Its colours are inverted,
    so that it is visible on plain surfaces too.

    Args:
        images: Good images, (N, H, W, 3) uint8.
        seed: Seed of the places and sizes.

    Returns:
        Copies with defects, (N, H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    defects: UInt8Array = images.copy()
    _, height, width, _ = images.shape
    for image, defect in zip(images, defects, strict=True):
        tall, wide = rng.integers(height // 8, height // 4 + 1), rng.integers(width // 8, width // 4 + 1)
        (y, to_y), (x, to_x) = rng.integers(0, height - tall + 1, 2), rng.integers(0, width - wide + 1, 2)
        defect[to_y : to_y + tall, to_x : to_x + wide] = 255 - image[y : y + tall, x : x + wide]
    return defects
