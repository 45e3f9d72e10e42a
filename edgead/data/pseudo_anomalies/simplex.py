"""Simplex noise: smooth spots without the directions of a grid, used as pseudo-anomalies in training.

Sources: Perlin, "Noise hardware", 2001; Gustavson, "Simplex noise demystified", 2005. RD++ adds such noise to a small
rectangle of a good image; the noisy copy stands for a defective image.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgead.types import BoolArray, Float32Array, Float64Array, UInt8Array

IntArray: TypeAlias = npt.NDArray[np.int64]

# Noise of RD++. Each octave has 0.6 of the height and half the length of the one before; the first is 32 pixels long.
# The height of the first octave is a fifth of the range of a pixel.
OCTAVES = 6
PERSISTENCE = 0.6
LENGTH_PX = 32.0
HEIGHT = 0.2 * 255.0
# Sides of the rectangle, as a share of the sides of the image.
SMALLEST, LARGEST = 1 / 25, 1 / 8

# The plane is divided into equilateral triangles. Skewing by these factors maps their corners to integer coordinates.
_SKEW = (math.sqrt(3.0) - 1.0) / 2.0
_UNSKEW = (3.0 - math.sqrt(3.0)) / 6.0
_GRADIENTS = np.stack([np.cos(np.arange(8) * np.pi / 4.0), np.sin(np.arange(8) * np.pi / 4.0)], axis=1)
# Scales the largest value to about 1.
_SCALE = 99.2


def simplex_noise(x: Float64Array, y: Float64Array, table: IntArray) -> Float64Array:
    """Compute simplex noise at points of the plane. The triangles have sides of about 0.8.

    Args:
        x: Horizontal coordinates, of any shape.
        y: Vertical coordinates, of the same shape.
        table: Permutation of 0 to 255, (256,), that determines the noise.

    Returns:
        Noise from about -1 to 1, of the shape of `x`.
    """
    shift = (x + y) * _SKEW
    column, row = np.floor(x + shift), np.floor(y + shift)
    # Vector from the corner of the cell to the point, and the triangle of the cell that holds the point.
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
    """Add simplex noise to a random rectangle of a copy of each image, the same noise in all three channels.

    Args:
        images: Images, (N, H, W, 3) uint8.
        rng: Random generator; it determines the result.

    Returns:
        Noisy copies, (N, H, W, 3) float32, on the scale 0 to 255 but not clipped to it.
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
    """Return the copies of `noisy_copies` as images, rounded and clipped to 0 to 255, with their masks.

    Args:
        images: Images, (N, H, W, 3) uint8.
        rng: Random generator; it determines the result.

    Returns:
        Noisy images, (N, H, W, 3) uint8, and masks, (N, H, W) bool, True exactly where a pixel differs in any channel.
        Noise that clipping or rounding removes is not in the mask.
    """
    noisy = np.clip(np.rint(noisy_copies(images, rng)), 0, 255).astype(np.uint8)
    return noisy, (noisy != images).any(axis=3)


def _from_corner(
    dx: Float64Array, dy: Float64Array, column: Float64Array, row: Float64Array, table: IntArray
) -> Float64Array:
    """Return the contribution of a corner: gradient times distance vector, fading to 0 at distance sqrt(1/2)."""
    hashed = table[(column.astype(int) + table[row.astype(int) & 255]) & 255] & 7
    along = _GRADIENTS[hashed, 0] * dx + _GRADIENTS[hashed, 1] * dy
    faded: Float64Array = np.maximum(0.0, 0.5 - dx * dx - dy * dy) ** 4 * along
    return faded


def _stretch(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return a random stretch of a side: its first pixel, and the pixel after its last one."""
    length = int(rng.integers(max(1, round(SMALLEST * side)), max(2, round(LARGEST * side)), endpoint=True))
    start = int(rng.integers(0, side - length, endpoint=True))
    return start, start + length
