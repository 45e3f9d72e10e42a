"""WebP, decoded by OpenCV."""

from __future__ import annotations

import struct
from contextlib import suppress

import cv2
import numpy as np

from edgead.imaging.formats.exif import orientation_from_exif
from edgead.imaging.formats.pixels import (
    DamagedImageError,
    Pixels,
    UnsupportedImageError,
    check_size,
    pixels_from_opencv,
)

_ANIMATION = 0x02


def is_webp(data: bytes) -> bool:
    """Return True if the content begins like a WebP file.

    Args:
        data: Content of the file.
    """
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def decode_webp(data: bytes) -> Pixels:
    """Decode a WebP file.

    Args:
        data: Content of the file.

    Returns:
        RGB pixels of 8 bits.

    Raises:
        DamagedImageError: The file is cut short or damaged.
        UnsupportedImageError: The file is an animation.
        LargeImageError: The image has too many pixels.
    """
    orientation = 1
    try:
        (length,) = struct.unpack_from("<I", data, 4)
        if 8 + length > len(data):
            raise DamagedImageError("it ends before its image does")
        check_size(*_size(data))
        place = 12
        while place + 8 <= 8 + length:
            kind, size = struct.unpack_from("<4sI", data, place)
            if kind == b"VP8X" and data[place + 8] & _ANIMATION:
                raise UnsupportedImageError("animated WebP")
            if kind == b"EXIF":
                orientation = orientation_from_exif(data[place + 8 : place + 8 + size])
            place += 8 + size + size % 2
    except (struct.error, IndexError) as error:
        raise DamagedImageError("its header is cut short or damaged") from error
    decoded = None
    with suppress(cv2.error):  # of an image that is larger than OpenCV's own limits
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DamagedImageError("its compressed data is damaged")
    return pixels_from_opencv(decoded, orientation)


def _size(data: bytes) -> tuple[int, int]:
    """Read height and width from the first chunk."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise DamagedImageError("its first chunk is unknown")
