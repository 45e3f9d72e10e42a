"""PNG: checked here, because decoders forgive a truncated or damaged stream, then decoded by OpenCV.

OpenCV's libpng prints to the terminal whatever it finds wrong. So it gets a plain file of the chunks that the pixels
depend on, which were checked before. The rules are those of the specification (W3C, Portable Network Graphics, 2003).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

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

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
# Samples of a pixel, and depths, by colour type.
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGB_ALPHA: (8, 16),
}
# First column and row of each pass of an interlaced image, and the steps between its columns and rows.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_LARGEST_FILTER = 4
_INFLATED_AT_ONCE_BYTES = 2**20
_LARGEST_SIDE = 1_000_000
"""Limit of libpng."""


class _Header(NamedTuple):
    """The content of the chunk IHDR."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filter: int
    interlace: int


def decode_png(data: bytes) -> Pixels:
    """Decode a PNG file.

    Args:
        data: Content of the file.

    Returns:
        Grey or RGB pixels of 8 or 16 bits. Grey of less than 8 bits is scaled to 8.

    Raises:
        DamagedImageError: The file is cut short, a checksum is wrong, or a chunk is at a wrong place.
        UnsupportedImageError: The file is an animation, has an unknown critical chunk, or has a side that is too long.
        LargeImageError: The image has too many pixels.
    """
    chunks = _checked_chunks(data)
    header = _checked_header(chunks.get(b"IHDR", b""))
    if b"acTL" in chunks:
        raise UnsupportedImageError("animated PNG")
    check_size(header.height, header.width)
    if max(header.height, header.width) > _LARGEST_SIDE:
        raise UnsupportedImageError(f"PNG with a side of more than {_LARGEST_SIDE} pixels")
    plain = [_chunk(b"IHDR", chunks[b"IHDR"]), *_colour_chunks(header, chunks)]
    plain += [_chunk(b"IDAT", _checked_pixels(chunks.get(b"IDAT", b""), header)), _chunk(b"IEND", b"")]
    decoded = None
    with suppress(cv2.error):  # of an image that is larger than OpenCV's own limits
        decoded = cv2.imdecode(np.frombuffer(SIGNATURE + b"".join(plain), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DamagedImageError("its decoder refuses it")
    pixels = pixels_from_opencv(decoded, orientation_from_exif(chunks.get(b"eXIf", b"")))
    if header.colour == _GREY and b"tRNS" in chunks:
        # OpenCV ignores the transparent grey level, though it applies a transparent colour.
        (key,) = struct.unpack(">H", chunks[b"tRNS"])
        scale = 255 // (2**header.depth - 1) if header.depth < 8 else 1
        alpha = np.where(pixels.values == key * scale, 0, pixels.peak).astype(pixels.values.dtype)
        return Pixels(pixels.values, pixels.peak, alpha, orientation=pixels.orientation)
    return pixels


def _checked_chunks(data: bytes) -> dict[bytes, bytes]:
    """Check the chunks that the pixels depend on.

    Args:
        data: Content of the file.

    Returns:
        The chunks by name, those of the pixels joined; other chunks are empty.
    """
    # The loop follows the lengths of the chunks, because the letters IEND can also occur inside compressed pixels.
    place, pixels = len(SIGNATURE), []
    chunks: dict[bytes, bytes] = {}
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + length
        if not kind.isalpha():
            raise DamagedImageError("the name of a chunk is damaged")
        # A capital letter marks a critical chunk. A damaged comment does not change the image.
        matters = kind[:1].isupper() or kind in (b"tRNS", b"eXIf")
        if matters and data[end : end + 4] != struct.pack(">I", zlib.crc32(data[place + 4 : end])):
            raise DamagedImageError(f"the checksum of its chunk {kind.decode()!r} is wrong")
        if kind == b"IDAT":
            pixels.append(data[place + 8 : end])
        elif kind == b"IEND":
            return {**chunks, b"IDAT": b"".join(pixels)}
        else:
            if matters:
                _check_place(kind, chunks, bool(pixels), is_first=place == len(SIGNATURE))
            chunks.setdefault(kind, data[place + 8 : end] if matters else b"")
        place = end + 4
    raise DamagedImageError("it ends before its image does")


def _check_place(kind: bytes, before: Mapping[bytes, bytes], is_behind_pixels: bool, is_first: bool) -> None:
    """Check that a chunk is known, is given once, and stands where it must."""
    if kind == b"eXIf":
        return
    if kind not in (b"IHDR", b"PLTE", b"tRNS"):
        raise UnsupportedImageError(f"PNG with a chunk {kind.decode()!r}")
    is_misplaced = (
        is_behind_pixels or is_first != (kind == b"IHDR") or (kind == b"PLTE" and b"tRNS" in before)
    )
    if kind in before or is_misplaced:
        raise DamagedImageError(f"its chunk {kind.decode()!r} is at a wrong place")


def _checked_header(content: bytes) -> _Header:
    """Read and check the header."""
    try:
        header = _Header(*struct.unpack(">IIBBBBB", content))
    except struct.error as error:
        raise DamagedImageError("its header is cut short or damaged") from error
    if (
        header.depth not in _DEPTHS.get(header.colour, ())
        or header.compression != 0
        or header.filter != 0
        or header.interlace > 1
    ):
        raise DamagedImageError("its header is damaged")
    return header


def _colour_chunks(header: _Header, chunks: Mapping[bytes, bytes]) -> list[bytes]:
    """Check palette and transparency; return the chunks of those that OpenCV needs."""
    found = []
    palette, transparency = chunks.get(b"PLTE", b""), chunks.get(b"tRNS")
    if header.colour == _PALETTE:
        if not palette or len(palette) % 3 or len(palette) > 3 * 256:
            raise DamagedImageError("its palette is missing or damaged")
        found.append(_chunk(b"PLTE", palette[: 3 * 2**header.depth]))
    lengths = {_GREY: range(2, 3), _RGB: range(6, 7), _PALETTE: range(1, len(palette) // 3 + 1)}
    if transparency is None or header.colour not in lengths:
        return found
    if len(transparency) not in lengths[header.colour]:
        raise DamagedImageError("its transparency is damaged")
    is_index = header.colour == _PALETTE
    # A transparent colour beyond the depth is in no pixel.
    is_colour = header.colour == _RGB and max(struct.unpack(">HHH", transparency)) < 2**header.depth
    if is_index or is_colour:
        found.append(_chunk(b"tRNS", transparency[: 2**header.depth] if is_index else transparency))
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
    )


def _rows(header: _Header) -> list[tuple[int, int, int]]:
    """Return the rows of each pass: place of the first one in the inflated stream, bytes of each, and their number.

    The first byte of a row is the number of its filter.
    """
    found, place = [], 0
    for left, top, across, down in _PASSES if header.interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(header.width - left) // across), -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            row_bytes = 1 + (columns * header.depth * _SAMPLES[header.colour] + 7) // 8
            found.append((place, row_bytes, rows))
            place += rows * row_bytes
    return found


def _checked_pixels(compressed: bytes, header: _Header) -> bytes:
    """Check that the compressed pixels are complete and have a correct checksum; return them without what follows."""
    passes = _rows(header)
    expected = sum(row_bytes * rows for _, row_bytes, rows in passes)
    stream, rest, total = zlib.decompressobj(), compressed, 0
    try:
        while not stream.eof and total <= expected:
            inflated = stream.decompress(rest, _INFLATED_AT_ONCE_BYTES)
            rest = stream.unconsumed_tail
            if not inflated and not rest:
                break
            _check_filters(inflated, total, passes)
            total += len(inflated)
    except zlib.error as error:
        raise DamagedImageError(f"its compressed data is damaged ({error})") from error
    if total > expected:
        raise DamagedImageError("its compressed data is longer than its image")
    if total < expected or not stream.eof:
        raise DamagedImageError("its compressed data ends before its image does, or lacks its end")
    return compressed[: len(compressed) - len(stream.unused_data)]


def _check_filters(inflated: bytes, place: int, passes: list[tuple[int, int, int]]) -> None:
    """Check the filters of the rows that begin in a piece of the inflated stream, which begins at a place of it."""
    piece = np.frombuffer(inflated, np.uint8)
    for start, row_bytes, rows in passes:
        first = max(0, -(-(place - start) // row_bytes))
        filters = piece[start + first * row_bytes - place :: row_bytes][: max(0, rows - first)]
        if filters.max(initial=0) > _LARGEST_FILTER:
            raise DamagedImageError("the filter of a row is damaged")
