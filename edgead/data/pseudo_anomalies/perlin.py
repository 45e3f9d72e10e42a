"""Perlin noise, and masks of irregular spots from it: the places of pseudo-anomalies.

Source: Perlin, "An image synthesizer", SIGGRAPH 1985, with the smoother fade of "Improving noise", 2002. The masks
follow DRAEM (Zavrtanik et al., ICCV 2021). The number of cells along each axis is a random power of two, which gives
anything from wide spots to fine streaks. The noise is rotated by a random angle.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgead.types import BoolArray, Float64Array

# DRAEM's values: the mask is the noise above this threshold; 1 to 32 (2**5) cells along an axis; rotation up to 90
# degrees in either direction.
THRESHOLD = 0.5
MAX_EXPONENT = 5
TURN_DEG = 90.0
# DRAEM's 32 cells have 8 pixels each, as its images have 256. Smaller images get fewer cells: in a cell of one pixel
# the noise is 0.
CELL_MIN_PX = 8
# Limits of the area of a mask, as a share of the image. Without them, one mask in twenty is empty at 256 pixels.
SMALLEST, LARGEST = 1 / 1000, 1 / 2
TRIES = 20


def perlin_noise(height: int, width: int, cells: tuple[int, int], rng: np.random.Generator) -> Float64Array:
    """Compute Perlin noise. It is exactly 0 at the corners of its cells.

    Args:
        height: Height of the noise, in pixels.
        width: Width of the noise, in pixels.
        cells: Number of cells along the height and along the width, at least 1. The first pixel lies on a corner.
        rng: Random generator; it determines the noise.

    Returns:
        Noise from -1 to 1, (height, width) float64.
    """
    angles = rng.uniform(0.0, 2.0 * np.pi, (cells[0] + 1, cells[1] + 1))
    down_fade, down_ramp = _corner_weights(height, cells[0])
    across_fade, across_ramp = _corner_weights(width, cells[1])
    # A corner contributes its gradient times the distance vector, faded along both axes. The axes are separable, so the
    # sum over corners is two products of small matrices. The factor sqrt(2) scales the largest value to 1.
    noise: Float64Array = math.sqrt(2.0) * (
        down_ramp @ np.cos(angles) @ across_fade.T + down_fade @ np.sin(angles) @ across_ramp.T
    )
    return noise


def perlin_mask(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """Draw a random mask of one or more spots.

    A mask outside the limits `SMALLEST` and `LARGEST` is drawn again. If `TRIES` draws fail, the mask is the highest
    pixels of the last noise: a share of `SMALLEST`, at least one pixel.

    Args:
        height: Height of the mask, in pixels.
        width: Width of the mask, in pixels.
        rng: Random generator; it determines the mask.

    Returns:
        Mask, (height, width) bool. It is never empty and never the whole image.

    Raises:
        ValueError: The image has fewer than two pixels.
    """
    area = height * width
    if area < 2:
        raise ValueError(f"a mask needs two pixels, one inside and one outside, not {height} x {width}")
    for _ in range(TRIES):
        noise = _turned(perlin_noise(height, width, _draw_cells(height, width, rng), rng), rng)
        mask = noise > THRESHOLD
        if SMALLEST * area <= np.count_nonzero(mask) <= min(area - 1, LARGEST * area):
            return mask
    highest = np.argsort(-noise, axis=None, kind="stable")[: math.ceil(SMALLEST * area)]
    mask = np.zeros((height, width), np.bool_)
    mask.flat[highest] = True
    return mask


def _corner_weights(pixels: int, cells: int) -> tuple[Float64Array, Float64Array]:
    """Return the fade, and the fade times the distance, of every pixel from every corner along one axis.

    Both are (pixels, cells + 1) and nonzero only for the two corners of the pixel's cell.
    """
    place = np.arange(pixels) * (cells / pixels)
    away = place[:, None] - np.arange(cells + 1)
    near = np.maximum(0.0, 1.0 - np.abs(away))
    fade = near * near * near * (near * (6.0 * near - 15.0) + 10.0)
    return fade, fade * away


def _draw_cells(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the number of cells along the height and along the width: powers of two."""
    exponents = [min(MAX_EXPONENT, int(math.log2(max(1, side // CELL_MIN_PX)))) for side in (height, width)]
    down, across = rng.integers(0, exponents, endpoint=True)
    return 2 ** int(down), 2 ** int(across)


def _turned(noise: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Rotate the noise around the centre of the image; pixels from outside are 0, below the threshold."""
    height, width = noise.shape
    middle = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, rng.uniform(-TURN_DEG, TURN_DEG), 1.0)
    return np.asarray(cv2.warpAffine(noise, turn, (width, height), flags=cv2.INTER_LINEAR), np.float64)
