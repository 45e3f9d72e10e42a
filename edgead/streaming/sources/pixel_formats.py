"""Pixel formats of GenICam cameras: conversion to the images that OpenCV's cameras give.

The codes are those of the Pixel Format Naming Convention (PFNC). Formats with more than 8 bits are refused, because the
model has seen images with 8 bits, and which 8 of 12 are meant is a choice of the camera.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgead.types import UInt8Array

# Name, samples of a pixel, and conversion of OpenCV to BGR. A Bayer format has the name of its first two pixels.
_FORMATS = {
    0x01080001: ("Mono8", 1, None),
    0x01080008: ("BayerGR8", 1, cv2.COLOR_BayerGRBG2BGR),
    0x01080009: ("BayerRG8", 1, cv2.COLOR_BayerRGGB2BGR),
    0x0108000A: ("BayerGB8", 1, cv2.COLOR_BayerGBRG2BGR),
    0x0108000B: ("BayerBG8", 1, cv2.COLOR_BayerBGGR2BGR),
    0x02180014: ("RGB8", 3, cv2.COLOR_RGB2BGR),
    0x02180015: ("BGR8", 3, None),
}
SUPPORTED = tuple(name for name, _, _ in _FORMATS.values())


def is_supported(code: int) -> bool:
    """Return True if images of a format can be converted.

    Args:
        code: Code of the format (PFNC).
    """
    return code in _FORMATS


def bits_of_pixel(code: int) -> int:
    """Return the number of bits of a pixel, which the code of every format has.

    Args:
        code: Code of the format (PFNC).
    """
    return code >> 16 & 0xFF


def image_from_pixels(data: bytes, code: int, width: int, height: int, padding: int = 0) -> UInt8Array | None:
    """Convert the data of an image.

    Args:
        data: Pixels, row after row.
        code: Code of a supported format (PFNC).
        width: Width in pixels.
        height: Height in pixels.
        padding: Number of bytes after each row.

    Returns:
        The image, (H, W) uint8 grey or (H, W, 3) uint8 BGR; None if there is less data than the image needs.
    """
    _, samples, conversion = _FORMATS[code]
    row = width * samples
    if len(data) < height * (row + padding) - padding:
        return None
    # The last row may come without its padding.
    rows = np.frombuffer(data.ljust(height * (row + padding), b"\0"), np.uint8, height * (row + padding))
    pixels = rows.reshape(height, row + padding)[:, :row]
    image = pixels.reshape(height, width, samples) if samples > 1 else pixels
    if conversion is None:
        return image
    converted: UInt8Array = cv2.cvtColor(np.ascontiguousarray(image), conversion)
    return converted
