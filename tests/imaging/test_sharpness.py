"""Sharpness of drawn images and of photos, blurred by a known amount."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.imaging.decode import read_image
from edgead.imaging.image_statistics import image_statistics, mean_statistics
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.imaging.sharpness import sharpness, sharpness_limit
from edgead.types import UInt8Array

# Images beside the repository; their licences forbid to include them.
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SIZE = ModelSize(256, 256)


def drawn(seed: int) -> UInt8Array:
    """A grey image with sharp discs and bars."""
    rng = np.random.default_rng(seed)
    image = np.full((1024, 1024, 3), 120, np.uint8)
    for _ in range(6):
        x, y, size = (int(value) for value in rng.integers(200, 800, 3))
        level = int(rng.integers(20, 250))
        cv2.circle(image, (x, y), size // 8, (level,) * 3, -1)
        cv2.rectangle(image, (y, x), (y + 40, x + size // 4), (255 - level,) * 3, -1)
    return image


def noisy(image: UInt8Array, sigma: float, seed: int = 0) -> UInt8Array:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def blurred(image: UInt8Array, sigma_px: float) -> UInt8Array:
    """Blur an image by a standard deviation in pixels of the model's image."""
    sigma = sigma_px * image.shape[1] / SIZE.width_px
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8)


def measured(image: UInt8Array) -> float:
    value = sharpness(resize_to_model(image, SIZE))
    assert value is not None
    return value


def test_the_sharpness_falls_with_the_blur_and_does_not_depend_on_light_contrast_and_noise() -> None:
    image = drawn(0)
    sharp = measured(image)
    values = [measured(blurred(image, sigma)) for sigma in (0.5, 1.0, 1.5, 2.0)]
    assert values == sorted(values, reverse=True)
    assert values[1] < sharp / 3
    darker = (0.4 * image).astype(np.uint8)
    assert measured(darker) == pytest.approx(sharp, rel=0.05)
    assert measured(noisy(image, 8)) == pytest.approx(sharp, rel=0.1)
    assert measured(noisy(blurred(image, 1.5), 8)) < sharp / 3


def test_an_image_without_edges_has_no_sharpness() -> None:
    flat = np.full((256, 256, 3), 90, np.uint8)
    assert sharpness(flat) is None
    assert all(sharpness(noisy(flat, 5, seed)) is None for seed in range(20))
    assert sharpness_limit([flat]) is None
    assert sharpness_limit([]) is None


@pytest.mark.parametrize("shape", [(8, 8), (7, 300), (33, 64)])
def test_small_images_are_measured(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2 :, shape[1] // 2 :] = 200
    value = sharpness(image)
    assert value is None or 0 <= value < np.inf


@pytest.mark.parametrize("part", ["screw", "transistor"])
def test_photos_that_are_out_of_focus_are_below_the_limit_and_others_are_not(part: str) -> None:
    files = sorted((SHARED / part / "train" / "good").glob("*.png"))
    if not files:
        pytest.skip(f"no images of the {part} at {SHARED}")
    images = [read_image(file) for file in files[::10]]
    limit = sharpness_limit(resize_to_model(image, SIZE) for image in images[:4])
    assert limit is not None
    assert all(measured(image) >= limit for image in images[4:])
    assert all(measured(blurred(image, 1.0)) < limit for image in images[4:16])
    assert all(measured(noisy(blurred(image, 1.5), 5)) < limit for image in images[4:16])


def test_the_statistics_of_tiles_are_their_means() -> None:
    rows = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in (20, 60)])
    first, second = (image_statistics(row) for row in rows)
    assert mean_statistics(rows)["brightness"] == (first["brightness"] + second["brightness"]) / 2 != 20
    assert mean_statistics(rows)["sharpness"] is None
