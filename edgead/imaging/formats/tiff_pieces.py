"""Strips and tiles of a TIFF file: decompressed, and unpacked to samples."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgead.imaging.formats.lzw import unpack_lzw, unpack_packbits
from edgead.imaging.formats.pixels import DamagedImageError, Samples, UnsupportedImageError

_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class Compression(NamedTuple):
    """A way to compress pieces.

    Attributes:
        unpack: Function of the compressed bytes and the number of bytes that the image needs.
        predicts: Whether writers combine it with a predictor.
    """

    unpack: Callable[[bytes, int], bytes]
    predicts: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Encoding of the pieces of an image.

    Attributes:
        shape: Rows and columns of a piece.
        samples: Samples of a pixel inside a piece.
        depth: Bits of a sample, 1 to 16.
        compression: Compression of the bytes.
        predictor: 2 if a sample is stored as its difference to the one on its left, else 1.
        fill_order: 2 if the bits of each byte are reversed, else 1.
        order: Byte order of 16-bit samples, `<` or `>`.
    """

    shape: tuple[int, int]
    samples: int
    depth: int
    compression: Compression
    predictor: int
    fill_order: int
    order: str


def samples_of_piece(content: bytes, piece: Piece, rows: int) -> Samples:
    """Decode one strip or tile.

    Args:
        content: Bytes of the piece.
        piece: Encoding of the piece.
        rows: Number of rows to decode; the last strip has fewer rows than the others.

    Returns:
        Samples, (rows, columns, samples), uint8 for depths up to 8 bits, else uint16.

    Raises:
        DamagedImageError: The bytes end too early or are damaged.
        UnsupportedImageError: The bytes are LZW data of before 1992.
    """
    if piece.fill_order == 2:
        content = content.translate(_REVERSED_BITS)
    shape = (rows, piece.shape[1], piece.samples)
    per_row = piece.shape[1] * piece.samples
    row_bytes = (per_row * piece.depth + 7) // 8
    unpacked = piece.compression.unpack(content, rows * row_bytes)[: rows * row_bytes]
    if piece.depth == 8:
        values: Samples = np.frombuffer(unpacked, np.uint8).reshape(shape)
    elif piece.depth == 16:
        values = np.frombuffer(unpacked, piece.order + "u2").astype(np.uint16).reshape(shape)
    else:
        bits = np.unpackbits(np.frombuffer(unpacked, np.uint8).reshape(rows, row_bytes), axis=1)
        bits = bits[:, : per_row * piece.depth].reshape(*shape, piece.depth)
        values = np.zeros(shape, np.uint8 if piece.depth < 8 else np.uint16)
        for place in range(piece.depth):
            values = (values << 1 | bits[..., place]).astype(values.dtype)
    if piece.predictor == 2:
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    return values


def _plain(content: bytes, expected: int) -> bytes:
    if len(content) < expected:
        raise DamagedImageError("it ends before its image does")
    return content


def _inflated(content: bytes, expected: int) -> bytes:
    """Inflate a zlib stream to its end, where its checksum is; a stream may be longer than the image needs."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(content, expected + 1)
        while not stream.eof and len(inflated) <= expected:
            more = stream.decompress(stream.unconsumed_tail, expected + 1)
            if not more and not stream.unconsumed_tail:
                break
            inflated += more
    except zlib.error as error:
        raise DamagedImageError(f"its compressed data is damaged ({error})") from error
    if len(inflated) < expected or (not stream.eof and len(inflated) == expected):
        raise DamagedImageError("its compressed data ends before its image does, or lacks its end")
    return inflated


def _lzw(content: bytes, expected: int) -> bytes:
    if content[:1] == b"\0" and content[1:2] and content[1] & 1:
        raise UnsupportedImageError("TIFF with LZW compression of the old style")
    return unpack_lzw(content, expected)


# By the number that a file records. 32946 is an old number of Deflate.
COMPRESSIONS = {
    1: Compression(_plain, False),
    5: Compression(_lzw, True),
    8: Compression(_inflated, True),
    32946: Compression(_inflated, True),
    32773: Compression(unpack_packbits, False),
}
