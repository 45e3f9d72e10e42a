"""The format, size and completeness of a picture file, read from its header before anything is decoded.

A decoder that is given a file of a few bytes declaring a gigantic picture allocates it, and decoders fill
what a cut file lacks with grey and say nothing. Both are refused here, for the four formats that edgead
reads. So is a PNG whose checksums are wrong, because its decoder would write to the terminal by itself.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

PictureFormat = Literal["png", "jpeg", "bmp", "tiff"]

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a file declares. whole: False when it certainly ends before its picture does, or a checksum is wrong."""

    format: PictureFormat
    height_px: int
    width_px: int
    whole: bool


def read_header(data: bytes) -> PictureHeader | None:
    """Read the header of a PNG, JPEG, BMP or TIFF file; None when it is none of them or makes no sense."""
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


def _png(data: bytes) -> PictureHeader | None:
    width, height = struct.unpack_from(">II", data, 16)
    # Chunks are walked by their lengths: the letters IEND may well occur inside compressed pixels.
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        # A capital letter marks a chunk that the picture needs; of the others a decoder forgives the checksum.
        if kind[:1].isupper() and data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            break
        if kind == b"IEND":
            return PictureHeader("png", height, width, True)
        place = end + 4
    return PictureHeader("png", height, width, False)


def _jpeg(data: bytes) -> PictureHeader | None:
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_BARE:
            place += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            # Inside the compressed pixels 0xFF is followed by 0, so this is the end and no pixel.
            return PictureHeader("jpeg", height, width, data.find(b"\xff\xd9", place) >= 0)
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _bmp(data: bytes) -> PictureHeader | None:
    header_bytes, width, height = struct.unpack_from("<Iii", data, 14)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header_bytes < 40 or width < 1:
        return None
    whole = True
    if compression in (0, 3):  # plain rows, each padded to four bytes
        (start,) = struct.unpack_from("<I", data, 10)
        whole = len(data) >= start + (width * bits + 31) // 32 * 4 * abs(height)
    return PictureHeader("bmp", abs(height), width, whole)


def _tiff(data: bytes) -> PictureHeader | None:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    sides: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            sides[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
    if len(sides) != 2:
        return None
    # The directory is read, and libtiff fails by itself on strips that are not there.
    return PictureHeader("tiff", sides[_TIFF_HEIGHT], sides[_TIFF_WIDTH], True)
