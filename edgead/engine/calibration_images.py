"""Loads or generates the images that INT8 is calibrated on: `--calibrate-on`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from edgead.data import LoadedImages
from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.errors import DataError
from edgead.types import UInt8Array

CalibrateOn = Literal["train", "noise", "defects", "mixed"]
CALIBRATE_ON: tuple[CalibrateOn, ...] = get_args(CalibrateOn)

CALIBRATION_IMAGES = 64
"""Largest number of good images to calibrate on. If there are more, every second, third and so on is used."""

MIN_CALIBRATION_IMAGES = 8
"""Smallest number of good images to calibrate on. Fewer images would not represent the production."""

# Differs from the seed of the verification, so that clipping limits are not fitted to the defects that verify them.
_DEFECT_SEED = 1


def calibration_rows(loaded: LoadedImages, count: int) -> UInt8Array:
    """Return images or tiles to calibrate on.

    Args:
        loaded: Good images.
        count: Largest number of rows if the images are in tiles.

    Returns:
        Rows, (N, H, W, 3) uint8 RGB: all images, or tiles that are spread over them.
    """
    rows = len(loaded.images)
    if rows == len(loaded.samples):
        return np.asarray(loaded.images[:])
    return loaded.images[np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.intp))]


def calibration_images(
    calibrate_on: CalibrateOn, shape: tuple[int, ...], training_images: Callable[[int], UInt8Array]
) -> UInt8Array:
    """Load or generate the images that INT8 is calibrated on. The result is deterministic.

    Args:
        calibrate_on: Kind of calibration images.
        shape: Shape of an image, (H, W, 3).
        training_images: Function that takes a number and returns at most this many good images of the training,
            (N, H, W, 3) uint8 RGB.

    Returns:
        The calibration images, (N, H, W, 3) uint8 RGB.

    Raises:
        DataError: If there are fewer good images than `MIN_CALIBRATION_IMAGES`.
    """
    if calibrate_on == "noise":
        noise = np.random.default_rng(_DEFECT_SEED).integers(0, 256, (CALIBRATION_IMAGES, *shape), np.uint8)
        return np.asarray(noise, np.uint8)
    good = training_images(CALIBRATION_IMAGES)
    if len(good) < MIN_CALIBRATION_IMAGES:
        raise DataError(
            f"int8 has {len(good)} images to calibrate on and needs at least {MIN_CALIBRATION_IMAGES}",
            hint="train on more images, or give --calibrate-on noise",
        )
    if calibrate_on == "train":
        return good
    if calibrate_on == "defects":
        return synthetic_defects(good, _DEFECT_SEED)
    return np.concatenate([good[::2], synthetic_defects(good[1::2], _DEFECT_SEED)])
