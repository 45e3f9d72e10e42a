"""Perlin noise, and masks of irregular spots from it: where a pseudo-anomaly lies.

Perlin, "An image synthesizer", SIGGRAPH 1985, with the smoother fade of "Improving noise", 2002. The masks are those of
DRAEM (Zavrtanik et al., ICCV 2021): as many cells along each axis as a power of two, from wide spots to fine streaks,
turned by any angle.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgead.types import BoolArray, Float64Array

# DRAEM's: a pixel belongs to the mask above this; 1 to 32 cells an axis; a quarter turn to either side.
THRESHOLD = 0.5
MAX_EXPONENT = 5
TURN_DEG = 90.0
# DRAEM's 32 cells are 8 pixels each at its 256. Smaller images get fewer: in a cell of one pixel the noise is 0.
CELL_MIN_PX = 8
# The area of a mask as a share of the image. Without these, one mask in twenty is empty at 256 pixels.
SMALLEST, LARGEST = 1 / 1000, 1 / 2
TRIES = 20


def perlin_noise(height: int, width: int, cells: tuple[int, int], rng: np.random.Generator) -> Float64Array:
    """Smooth noise from -1 to 1, (height, width) float64, exactly 0 at the corners of its cells.

    cells: how many along the height and along the width, 1 at least. The first pixel lies on a corner.
    """
    angles = rng.uniform(0.0, 2.0 * np.pi, (cells[0] + 1, cells[1] + 1))
    down_fade, down_ramp = _corner_weights(height, cells[0])
    across_fade, across_ramp = _corner_weights(width, cells[1])
    # A corner adds its gradient times the way from it, faded along both axes. Down and across separate, so the sum over
    # corners is two products of small matrices; sqrt(2) brings the largest value to 1.
    noise: Float64Array = math.sqrt(2.0) * (
        down_ramp @ np.cos(angles) @ across_fade.T + down_fade @ np.sin(angles) @ across_ramp.T
    )
    return noise


def perlin_mask(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """Draw where something is wrong: (height, width) bool, a share of the image from `SMALLEST` to `LARGEST`.

    Spots of any number, from one. What is outside these shares is drawn again. Should `TRIES` draws all have been, the
    highest pixels of the last noise are the mask, as many as `SMALLEST` says and one at least. Never empty, and never
    the whole image. Raises ValueError for an image of fewer than two pixels.
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
    """Of each pixel of an axis, for each corner on it: the fade, and the fade times the way from it.

    Both (pixels, cells + 1), 0 except the two corners of the pixel's cell.
    """
    place = np.arange(pixels) * (cells / pixels)
    away = place[:, None] - np.arange(cells + 1)
    near = np.maximum(0.0, 1.0 - np.abs(away))
    fade = near * near * near * (near * (6.0 * near - 15.0) + 10.0)
    return fade, fade * away


def _draw_cells(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    exponents = [min(MAX_EXPONENT, int(math.log2(max(1, side // CELL_MIN_PX)))) for side in (height, width)]
    down, across = rng.integers(0, exponents, endpoint=True)
    return 2 ** int(down), 2 ** int(across)


def _turned(noise: Float64Array, rng: np.random.Generator) -> Float64Array:
    """The noise turned about the image's middle; what comes in from outside is 0, below the threshold."""
    height, width = noise.shape
    middle = ((width - 1) / 2, (height - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, rng.uniform(-TURN_DEG, TURN_DEG), 1.0)
    return np.asarray(cv2.warpAffine(noise, turn, (width, height), flags=cv2.INTER_LINEAR), np.float64)
