"""Format, size and completeness of an image file, read from its header before the file is decoded.

A file of a few bytes can declare a gigantic image, and a decoder would allocate it. Decoders silently fill the missing
part of a truncated file with grey. This module detects both, for the four formats that edgead reads. It also verifies
the checksums of a PNG, because its decoder would write to the terminal, and the checksums of the compressed pixels of a
TIFF, because OpenCV 5 replaces damaged pixels with grey.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["png", "jpeg", "bmp", "tiff"]

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_COMPRESSION, _TIFF_FILL_ORDER = 256, 257, 259, 266
# Tags of the offsets and lengths of the strips, and of the tiles.
_TIFF_PIECES = ((273, 279), (324, 325))
_TIFF_DEFLATE = (8, 32946)
_TIFF_TAGS = frozenset((256, 257, 259, 266, 273, 279, 324, 325))
# No image of a size that edgead reads inflates to more bytes than this.
_MAX_INFLATED_BYTES = 2**30
_INFLATED_AT_ONCE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The content of an image header.

    Attributes:
        format: File format.
        height_px: Height of the image, in pixels.
        width_px: Width of the image, in pixels.
        whole: False if the file certainly ends before its image does, or a checksum is wrong.
    """

    format: ImageFormat
    height_px: int
    width_px: int
    whole: bool


def read_header(data: bytes) -> ImageHeader | None:
    """Read the header of a PNG, JPEG, BMP or TIFF file.

    Args:
        data: Content of the file.

    Returns:
        The header; None if the file has another format or an invalid header.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff(data)
    except (struct.error, IndexError):
        return None
    return None


def _png(data: bytes) -> ImageHeader | None:
    width, height = struct.unpack_from(">II", data, 16)
    # The loop follows the lengths of the chunks, because the letters IEND can also occur inside compressed pixels.
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        # A capital letter marks a critical chunk; decoders ignore wrong checksums of the other chunks.
        if kind[:1].isupper() and data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            break
        if kind == b"IEND":
            return ImageHeader("png", height, width, True)
        place = end + 4
    return ImageHeader("png", height, width, False)


def _jpeg(data: bytes) -> ImageHeader | None:
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_BARE:
            place += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            # Inside compressed pixels 0 follows 0xFF, so these two bytes are the end marker.
            return ImageHeader("jpeg", height, width, data.find(b"\xff\xd9", place) >= 0)
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _bmp(data: bytes) -> ImageHeader | None:
    header_bytes, width, height = struct.unpack_from("<Iii", data, 14)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header_bytes < 40 or width < 1:
        return None
    whole = True
    if compression in (0, 3):  # plain rows, each padded to four bytes
        (start,) = struct.unpack_from("<I", data, 10)
        whole = len(data) >= start + (width * bits + 31) // 32 * 4 * abs(height)
    return ImageHeader("bmp", abs(height), width, whole)


def _tiff(data: bytes) -> ImageHeader | None:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    values: dict[int, tuple[int, ...]] = {}
    outside = False
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        if tag in values:
            return None
        if tag in _TIFF_TAGS:
            layout = f"{order}{length}{'H' if kind == 3 else 'I'}"
            # Values of more than four bytes are stored at an offset.
            place = (
                entry + 8
                if struct.calcsize(layout) <= 4
                else struct.unpack_from(order + "I", data, entry + 8)[0]
            )
            try:
                values[tag] = struct.unpack_from(layout, data, place)
            except struct.error:
                outside = True
    if not {_TIFF_WIDTH, _TIFF_HEIGHT} <= values.keys():
        return None
    # libtiff itself fails on missing strips. Compressed data with reversed bit order is not checked: nobody writes it.
    plain = values.get(_TIFF_COMPRESSION, (1,))[0] not in _TIFF_DEFLATE
    readable = plain or values.get(_TIFF_FILL_ORDER, (1,))[0] != 1 or _inflates(data, values)
    return ImageHeader("tiff", values[_TIFF_HEIGHT][0], values[_TIFF_WIDTH][0], readable and not outside)


def _inflates(data: bytes, values: dict[int, tuple[int, ...]]) -> bool:
    """Return True if every strip or tile is a complete zlib stream with a correct checksum."""
    if sum(sum(values.get(lengths, ())) for _, lengths in _TIFF_PIECES) > len(data):
        # The strips overlap, which no writer produces. A small file could keep this loop busy for hours.
        return False
    left, content = _MAX_INFLATED_BYTES, memoryview(data)
    for begins, lengths in _TIFF_PIECES:
        for begin, length in zip(values.get(begins, ()), values.get(lengths, ()), strict=False):
            stream = zlib.decompressobj()
            rest: bytes | memoryview = content[begin : begin + length]
            try:
                while rest and left > 0:
                    left -= len(stream.decompress(rest, _INFLATED_AT_ONCE_BYTES))
                    rest = stream.unconsumed_tail
            except zlib.error:
                return False
            if not stream.eof:
                return False
    return True
