"""Bundles and images for tests of the public functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle

THRESHOLD = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)
SIZE = ModelSize(32, 64)
ADDRESS = "mqtt://me:secret@broker/line?spool=s"


def make_image(height: int = 32, width: int = 64, bright: bool = True) -> np.ndarray:
    """Make a dark image; if bright, with a white rectangle in the middle half of each axis."""
    image = np.zeros((height, width, 3), np.uint8)
    if bright:
        image[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    return image


def of_parts(path: Path) -> Path:
    thresholds = {"nut": THRESHOLD, "bolt": Threshold(2.0, 0.01, 0.95, 0.95, 299, 299)}
    return write_brightness_bundle(path, SIZE, thresholds)
