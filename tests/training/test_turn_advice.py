"""The advice to turn parts alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.training.turned_parts import turn_hint
from tests.training.test_turned_parts import SIDE_PX, wedge

SIZE = ModelSize(SIDE_PX, SIDE_PX)


def at(degrees: np.ndarray, half_width: float = 11.0) -> np.ndarray:
    return np.stack([wedge(float(one), half_width) for one in degrees])


def test_parts_at_any_angle_are_advised_to_be_turned_with_the_size_that_they_need():
    hint = turn_hint(at(np.arange(0, 360, 36)), SIZE)
    assert hint is not None
    # A wedge is 22 pixels high when it lies.
    assert "32x96" in hint


def textured_ground() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (10, SIDE_PX, SIDE_PX, 3), np.uint8)
    return np.where(at(np.arange(0, 360, 36)) == 60, noise, 170).astype(np.uint8)


def round_parts() -> np.ndarray:
    images = np.full((10, SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    for image in images:
        cv2.circle(image, (48, 48), 30, (170, 170, 170), -1)
    return images


@pytest.mark.parametrize(
    "images",
    [
        at(np.arange(-10, 10, 2)),
        # High parts save no pixels.
        at(np.arange(0, 360, 36), 37.0),
        textured_ground(),
        round_parts(),
        np.concatenate([at(np.arange(0, 360, 36)), np.full((1, SIDE_PX, SIDE_PX, 3), 60, np.uint8)]),
    ],
    ids=["alike", "high", "textured ground", "round", "one image without a part"],
)
def test_other_parts_are_not(images: np.ndarray):
    assert turn_hint(images, SIZE) is None
