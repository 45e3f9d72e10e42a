"""The length of the compressed strips and tiles of a TIFF, before tifffile unpacks them."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from edgead.imaging.formats.pixels import DamagedImageError, UnsupportedImageError
from edgead.imaging.formats.tiff_tags import PACKBITS

if TYPE_CHECKING:
    from tifffile import TiffPage

# Packed bytes of a file and unpacked bytes of a strip: tifffile alone unpacks in Python, and keeps a byte in eight.
_MAX_PACKBITS_BYTES = 2**25


def check_unpacked(page: TiffPage, data: bytes) -> None:
    """Check the unpacked length of each strip or tile: tifffile would unpack it to any length.

    Args:
        page: Image with Deflate or PackBits compression.
        data: Content of the file.

    Raises:
        DamagedImageError: The data of a piece is longer than its pixels, or damaged.
        UnsupportedImageError: There are more than `_MAX_PACKBITS_BYTES` bytes of PackBits.
    """
    rows, columns, *samples = page.chunks
    if not page.is_tiled:
        rows = min(rows, page.imagelength)
    most = rows * ((columns * math.prod(samples) * page.bitspersample + 7) // 8)
    is_packbits = int(page.compression) == PACKBITS
    if is_packbits and max(most, sum(page.databytecounts)) > _MAX_PACKBITS_BYTES:
        raise UnsupportedImageError(f"PackBits TIFF of more than {_MAX_PACKBITS_BYTES} bytes")
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        piece = data[offset : offset + length]
        if (_packbits_bytes if is_packbits else _inflated_bytes)(piece, most) > most:
            raise DamagedImageError("its compressed data is longer than its image")


def _inflated_bytes(piece: bytes, most: int) -> int:
    """Return the inflated length of a piece up to its checksum; more than `most` if it is longer."""
    stream = zlib.decompressobj()
    inflated = len(stream.decompress(piece, most + 1))
    if not stream.eof and inflated <= most:
        raise DamagedImageError("its compressed data ends before its image does")
    return inflated


def _packbits_bytes(piece: bytes, most: int) -> int:
    """Return the unpacked length of a piece of PackBits; more than `most` if it is longer."""
    place = unpacked = 0
    while place < len(piece) and unpacked <= most:
        code = piece[place]
        if code < 128:
            unpacked += code + 1
            place += code + 2
        else:
            # 128 is no operation.
            unpacked += 257 - code if code > 128 else 0
            place += 2 if code > 128 else 1
    return unpacked
