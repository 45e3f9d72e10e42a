"""The run-length compression of BMP files of 4 and 8 bits."""

from __future__ import annotations

import numpy as np

from edgead.imaging.formats.pixels import DamagedImageError
from edgead.types import UInt8Array

_END_OF_ROW, _END_OF_IMAGE, _MOVE = 0, 1, 2


def unpack_rle(data: bytes, height: int, width: int, bits: int) -> UInt8Array:
    """Decode run-length compressed pixels.

    Args:
        data: Compressed bytes.
        height: Height in pixels.
        width: Width in pixels.
        bits: Bits of a pixel, 4 or 8.

    Returns:
        Palette indices (H, W) in the file's order of rows; skipped pixels are 0.

    Raises:
        DamagedImageError: The data ends too early, or lies outside the image.
    """
    image = np.zeros((height, width), np.uint8)
    row = column = place = 0
    while place + 1 < len(data):
        count, value = data[place], data[place + 1]
        place += 2
        if count:
            pixels = _pixels(bytes([value]) * count, count, bits)
        elif value == _END_OF_IMAGE:
            return image
        elif value == _END_OF_ROW:
            row, column = row + 1, 0
            continue
        elif value == _MOVE:
            if place + 1 >= len(data):
                break
            row, column, place = row + data[place + 1], column + data[place], place + 2
            continue
        else:
            length = (value * bits + 7) // 8
            pixels = _pixels(data[place : place + length], value, bits)
            place += length + length % 2
        if row >= height or column + len(pixels) > width:
            raise DamagedImageError("its runs leave the image")
        image[row, column : column + len(pixels)] = pixels
        column += len(pixels)
    # Some writers leave out the end of the image after the last pixel.
    if row == height or (row == height - 1 and column == width):
        return image
    raise DamagedImageError("it ends before its image does")


def _pixels(content: bytes, count: int, bits: int) -> UInt8Array:
    """Return `count` palette indices; two share a byte of a 4-bit image, and a run repeats both of them."""
    values = np.frombuffer(content, np.uint8)
    if bits == 4:
        values = np.stack([values >> 4, values & 15], axis=1).ravel()
    return values[:count]
