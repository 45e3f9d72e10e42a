"""PNG: checked here, because decoders forgive a truncated or damaged stream, then decoded by OpenCV."""

from __future__ import annotations

import struct
import zlib
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

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel, by colour type
# First column and row of each pass of an interlaced image, and the steps between its columns and rows.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATED_AT_ONCE_BYTES = 2**20


def decode_png(data: bytes) -> Pixels:
    """Decode a PNG file.

    Args:
        data: Content of the file.

    Returns:
        Grey or RGB pixels of 8 or 16 bits. Grey of less than 8 bits is scaled to 8.

    Raises:
        DamagedImageError: The file is cut short, or a checksum is wrong.
        UnsupportedImageError: The file is an animation.
        LargeImageError: The image has too many pixels.
    """
    chunks, needed = _checked_chunks(data)
    try:
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    except (KeyError, struct.error) as error:
        raise DamagedImageError("its header is cut short or damaged") from error
    if b"acTL" in chunks:
        raise UnsupportedImageError("animated PNG")
    check_size(height, width)
    _check_pixels(chunks.get(b"IDAT", b""), _stream_bytes(height, width, depth, colour, interlace))
    decoded = None
    with suppress(cv2.error):  # of an image that is larger than OpenCV's own limits
        decoded = cv2.imdecode(np.frombuffer(needed, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DamagedImageError("its decoder refuses it")
    pixels = pixels_from_opencv(decoded, orientation_from_exif(chunks.get(b"eXIf", b"")))
    if colour == 0 and len(chunks.get(b"tRNS", b"")) == 2:
        # OpenCV ignores the transparent grey level, though it applies a transparent colour.
        (key,) = struct.unpack(">H", chunks[b"tRNS"])
        scale = 255 // (2**depth - 1) if depth < 8 else 1
        alpha = np.where(pixels.values == key * scale, 0, pixels.peak).astype(pixels.values.dtype)
        return Pixels(pixels.values, pixels.peak, alpha, orientation=pixels.orientation)
    return pixels


def _checked_chunks(data: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """Check the chunks that the pixels depend on.

    Args:
        data: Content of the file.

    Returns:
        The chunks by name, those of the pixels joined; and a file without the other chunks, because libpng prints
        warnings of damaged ones.
    """
    # The loop follows the lengths of the chunks, because the letters IEND can also occur inside compressed pixels.
    place, pixels, needed = len(SIGNATURE), [], [SIGNATURE]
    chunks: dict[bytes, bytes] = {}
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        if not kind.isalpha():
            raise DamagedImageError("the name of a chunk is damaged")
        # A capital letter marks a critical chunk. A damaged comment does not change the image.
        matters = kind[:1].isupper() or kind in (b"tRNS", b"eXIf")
        if matters and data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            raise DamagedImageError(f"the checksum of its chunk {kind.decode('latin-1')!r} is wrong")
        if matters:
            needed.append(data[place : end + 4])
        if kind == b"IDAT":
            pixels.append(data[place + 8 : end])
        elif kind == b"IEND":
            return {**chunks, b"IDAT": b"".join(pixels)}, b"".join(needed)
        else:
            chunks.setdefault(kind, data[place + 8 : end] if matters else b"")
        place = end + 4
    raise DamagedImageError("it ends before its image does")


def _stream_bytes(height: int, width: int, depth: int, colour: int, interlace: int) -> int:
    """Return the number of bytes of all rows, each with its filter byte."""
    if colour not in _SAMPLES or interlace > 1:
        raise DamagedImageError("its header is damaged")
    total = 0
    for left, top, across, down in _PASSES if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * depth * _SAMPLES[colour] + 7) // 8)
    return total


def _check_pixels(compressed: bytes, expected: int) -> None:
    """Check that the compressed pixels are complete and have a correct checksum."""
    stream, rest, total = zlib.decompressobj(), compressed, 0
    try:
        while not stream.eof and total <= expected:
            inflated = stream.decompress(rest, _INFLATED_AT_ONCE_BYTES)
            rest = stream.unconsumed_tail
            if not inflated and not rest:
                break
            total += len(inflated)
    except zlib.error as error:
        raise DamagedImageError(f"its compressed data is damaged ({error})") from error
    if total < expected or not stream.eof:
        raise DamagedImageError("its compressed data ends before its image does, or lacks its end")
