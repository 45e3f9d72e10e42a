"""Simple statistics of an image, which follow the light, the lens and the part in view."""

from __future__ import annotations

import cv2
import numpy as np

from edgead.imaging.sharpness import sharpness
from edgead.types import UInt8Array

IMAGE_STATISTICS = ("brightness", "contrast", "sharpness")
"""Names of the statistics."""


def image_statistics(image: UInt8Array) -> dict[str, float | None]:
    """Measure an image.

    Args:
        image: Image, (H, W, 3) uint8 RGB, at the model's size.

    Returns:
        Mean and standard deviation of the grey values, in levels, and the sharpness, see `edgead.imaging.sharpness`;
        None for the sharpness of an image without edges.
    """
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return {
        "brightness": float(mean[0, 0]),
        "contrast": float(deviation[0, 0]),
        "sharpness": sharpness(image),
    }


def mean_statistics(rows: UInt8Array) -> dict[str, float | None]:
    """Measure an image that is cut into tiles.

    Args:
        rows: Tiles, (N, H, W, 3) uint8 RGB, at the model's size; one for an image that is not cut.

    Returns:
        Mean of each statistic over the tiles that have it; None if none has it.
    """
    measured = [image_statistics(row) for row in rows]
    known = {
        name: [value for one in measured if (value := one[name]) is not None] for name in IMAGE_STATISTICS
    }
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}
