"""BMP of Windows and OS/2, decoded here, because OpenCV reads some of its headers wrong or not at all."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from edgead.imaging.formats.bmp_rle import unpack_rle
from edgead.imaging.formats.pixels import (
    DamagedImageError,
    Pixels,
    Samples,
    UnsupportedImageError,
    check_size,
)
from edgead.types import UInt8Array

SIGNATURE = b"BM"

_FILE_BYTES, _CORE_BYTES, _INFO_BYTES, _OS2_BYTES = 14, 12, 40, 64
_HEADERS = (_CORE_BYTES, 16, _INFO_BYTES, 52, 56, _OS2_BYTES, 108, 124)
_PLAIN, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_COMPRESSIONS = {4: "BMP with JPEG inside", 5: "BMP with PNG inside"}
# Red, green and blue of a pixel of 16 or 32 bits without masks; the other bits have no meaning.
_DEFAULT_MASKS = {16: (0x7C00, 0x03E0, 0x001F), 32: (0xFF0000, 0x00FF00, 0x0000FF)}


@dataclass(frozen=True, slots=True)
class _Header:
    """Header of a BMP file.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        upwards: Whether the first row of the file is the lowest.
        bits: Bits of a pixel.
        compression: Kind of compression.
        begin: Offset of the pixels.
        palette: Colours, (N, 3) uint8 RGB.
        masks: Bits of red, green, blue and perhaps opacity.
    """

    height: int
    width: int
    upwards: bool
    bits: int
    compression: int
    begin: int
    palette: UInt8Array
    masks: tuple[int, ...]


def decode_bmp(data: bytes) -> Pixels:
    """Decode a BMP file.

    Args:
        data: Content of the file.

    Returns:
        RGB pixels of 8 bits.

    Raises:
        DamagedImageError: The file is cut short or damaged.
        UnsupportedImageError: The file has a compression or a depth that edgead does not read.
        LargeImageError: The image has too many pixels.
    """
    try:
        header = _read_header(data)
    except struct.error as error:
        raise DamagedImageError("its header is cut short or damaged") from error
    if header.compression in (_RLE8, _RLE4):
        rows: Samples = unpack_rle(data[header.begin :], header.height, header.width, header.bits)
    else:
        rows = _plain_rows(data, header)
    if header.upwards:
        rows = rows[::-1]
    if header.bits <= 8:
        # An index beyond the palette is black.
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(header.palette)] = header.palette
        return Pixels(colours[rows])
    if header.bits == 24:
        return Pixels(rows[..., ::-1])
    colour = np.stack([_masked(rows, mask) for mask in header.masks[:3]], axis=2)
    alpha = _masked(rows, header.masks[3])[..., np.newaxis] if any(header.masks[3:]) else None
    return Pixels(colour, alpha=alpha)


def _read_header(data: bytes) -> _Header:
    (begin, header_bytes) = struct.unpack_from("<II", data, 10)
    if header_bytes not in _HEADERS:
        raise DamagedImageError(f"its header has {header_bytes} bytes")
    compression, used = _PLAIN, 0
    masks: tuple[int, ...] = ()
    if header_bytes == _CORE_BYTES:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        if header_bytes >= _INFO_BYTES:
            compression, _, _, _, used = struct.unpack_from("<IIiiI", data, 30)
    check_size(abs(height), width)
    _check_kind(bits, compression, header_bytes == _OS2_BYTES)
    after = _FILE_BYTES + header_bytes
    if bits in _DEFAULT_MASKS:
        masks = _DEFAULT_MASKS[bits]
        if compression in (_MASKS, _ALPHA_MASKS):
            # The masks follow the shortest header, and are part of every longer one.
            count = 4 if header_bytes >= 56 or compression == _ALPHA_MASKS else 3
            masks = struct.unpack_from(f"<{count}I", data, _FILE_BYTES + _INFO_BYTES)
            if not all(masks[:3]):
                raise DamagedImageError("its colour masks are empty")
    entry = 3 if header_bytes == _CORE_BYTES else 4
    if not after <= begin <= len(data):
        raise DamagedImageError("its pixels lie outside the file")
    count = min(used or 2**bits, 2**bits, (begin - after) // entry) if bits <= 8 else 0
    table = np.frombuffer(data, np.uint8, entry * count, after).reshape(count, entry)
    return _Header(abs(height), width, height > 0, bits, compression, begin, table[:, 2::-1], masks)


def _check_kind(bits: int, compression: int, is_os2: bool) -> None:
    """Refuse what is not read."""
    if is_os2 and compression >= 3:
        raise UnsupportedImageError("OS/2 BMP with Huffman or 24-bit RLE compression")
    if compression in _COMPRESSIONS:
        raise UnsupportedImageError(_COMPRESSIONS[compression])
    wanted = {
        _PLAIN: (1, 2, 4, 8, 16, 24, 32),
        _RLE8: (8,),
        _RLE4: (4,),
        _MASKS: (16, 32),
        _ALPHA_MASKS: (16, 32),
    }
    if bits not in wanted.get(compression, ()):
        raise UnsupportedImageError(f"{bits}-bit BMP with compression {compression}")


def _plain_rows(data: bytes, header: _Header) -> Samples:
    """Return the rows in the file's order: palette indices (H, W), BGR (H, W, 3), or pixels of 16 or 32 bits (H, W)."""
    # Each row is padded to four bytes.
    stride = (header.width * header.bits + 31) // 32 * 4
    if len(data) < header.begin + stride * header.height:
        raise DamagedImageError("it ends before its image does")
    packed = np.frombuffer(data, np.uint8, stride * header.height, header.begin).reshape(
        header.height, stride
    )
    if header.bits >= 8:
        used = packed[:, : header.width * header.bits // 8]
        if header.bits in _DEFAULT_MASKS:
            return np.ascontiguousarray(used).view(f"<u{header.bits // 8}")
        return used if header.bits == 8 else used.reshape(header.height, header.width, 3)
    bits = np.unpackbits(packed, axis=1)[:, : header.width * header.bits]
    index = np.zeros((header.height, header.width), np.uint8)
    for place in range(header.bits):
        index = (index << 1 | bits[:, place :: header.bits]).astype(np.uint8)
    return index


def _masked(pixels: Samples, mask: int) -> UInt8Array:
    """Return the bits of a mask, scaled to 8 bits."""
    shift = (mask & -mask).bit_length() - 1
    peak = mask >> shift
    if peak & (peak + 1):
        raise UnsupportedImageError("BMP with gaps in its colour masks")
    values = (pixels.astype(np.uint64) & mask) >> shift
    return ((values * 510 + peak) // (2 * peak)).astype(np.uint8)
