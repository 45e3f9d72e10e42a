"""Simplex noise: smooth spots without a grid's directions, which stand for defects while a method trains.

Perlin, "Noise hardware", 2001; Gustavson, "Simplex noise demystified", 2005. RD++ lays such noise over a small
rectangle of a good image to have a noisy copy with something wrong in it.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgead.types import BoolArray, Float32Array, Float64Array, UInt8Array

IntArray: TypeAlias = npt.NDArray[np.int64]

# Of RD++'s noisy copies: octaves, each with 0.6 of the last one's height and half its length, the first 32 pixels; the
# noise is at most about a fifth of the range of a pixel.
OCTAVES = 6
PERSISTENCE = 0.6
LENGTH_PX = 32.0
HEIGHT = 0.2 * 255.0
# Sides of the rectangle as a share of the image's.
SMALLEST, LARGEST = 1 / 25, 1 / 8

# The plane is cut into equilateral triangles; skewed by these, their corners are the whole numbers.
_SKEW = (math.sqrt(3.0) - 1.0) / 2.0
_UNSKEW = (3.0 - math.sqrt(3.0)) / 6.0
_GRADIENTS = np.stack([np.cos(np.arange(8) * np.pi / 4.0), np.sin(np.arange(8) * np.pi / 4.0)], axis=1)
# Brings the largest value near 1.
_SCALE = 99.2


def simplex_noise(x: Float64Array, y: Float64Array, table: IntArray) -> Float64Array:
    """Noise from about -1 to 1 at points of the plane; triangles have sides of about 0.8.

    x, y: coordinates of one shape. table: (256,) permutation of 0..255, which decides the noise.
    """
    shift = (x + y) * _SKEW
    column, row = np.floor(x + shift), np.floor(y + shift)
    # From the corner of the cell that the point lies in, and which of its two triangles that is.
    shift = (column + row) * _UNSKEW
    dx, dy = x - column + shift, y - row + shift
    right = (dx > dy).astype(float)
    noise = np.zeros_like(dx)
    for across, down in ((0.0, 0.0), (right, 1.0 - right), (1.0, 1.0)):
        away_x = dx - across + (across + down) * _UNSKEW
        away_y = dy - down + (across + down) * _UNSKEW
        noise += _from_corner(away_x, away_y, column + across, row + down, table)
    return _SCALE * noise


def noisy_copies(images: UInt8Array, rng: np.random.Generator) -> Float32Array:
    """Images with noise on a rectangle of each: (N, H, W, 3) uint8 to float32, still about 0 to 255, not clipped.

    The same noise for all three colours.
    """
    copies = images.astype(np.float32)
    for copy in copies:
        (top, bottom), (left, right) = (_stretch(side, rng) for side in copy.shape[:2])
        y, x = np.mgrid[top:bottom, left:right].astype(float)
        noise = np.zeros_like(x)
        for octave in range(OCTAVES):
            length = LENGTH_PX / 2.0**octave
            noise += PERSISTENCE**octave * simplex_noise(x / length, y / length, rng.permutation(256))
        copy[top:bottom, left:right] += (HEIGHT * noise)[..., None]
    return copies


def noisy_images(images: UInt8Array, rng: np.random.Generator) -> tuple[UInt8Array, BoolArray]:
    """The noisy copies as images to look at: rounded, and cut off at 0 and 255.

    images: (N, H, W, 3) uint8. Returns images of that shape, and masks (N, H, W) bool, True exactly where a pixel
    differs in any channel. Noise that black or white pixels cut off, or of less than half a level, is in no mask.
    """
    noisy = np.clip(np.rint(noisy_copies(images, rng)), 0, 255).astype(np.uint8)
    return noisy, (noisy != images).any(axis=3)


def _from_corner(
    dx: Float64Array, dy: Float64Array, column: Float64Array, row: Float64Array, table: IntArray
) -> Float64Array:
    """What a corner adds: its gradient along the way from it, fading to nothing at a distance of sqrt(1/2)."""
    hashed = table[(column.astype(int) + table[row.astype(int) & 255]) & 255] & 7
    along = _GRADIENTS[hashed, 0] * dx + _GRADIENTS[hashed, 1] * dy
    faded: Float64Array = np.maximum(0.0, 0.5 - dx * dx - dy * dy) ** 4 * along
    return faded


def _stretch(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """First pixel, and the one after the last, of a random stretch of a side."""
    length = int(rng.integers(max(1, round(SMALLEST * side)), max(2, round(LARGEST * side)), endpoint=True))
    start = int(rng.integers(0, side - length, endpoint=True))
    return start, start + length
