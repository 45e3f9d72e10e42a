"""BMP of Windows and OS/2, decoded by Pillow, because OpenCV reads some of its headers wrong or not at all."""

from __future__ import annotations

import io
import struct

import numpy as np

from edgead.imaging.formats.pixels import (
    DamagedImageError,
    Pixels,
    UnsupportedImageError,
    check_size,
)

SIGNATURE = b"BM"

_CORE_BYTES, _INFO_BYTES = 12, 40
_HEADERS = (_CORE_BYTES, _INFO_BYTES, 52, 56, 64, 108, 124)
_PLAIN, _RLE8, _RLE4, _MASKS = 0, 1, 2, 3
_OS2_BYTES = 64
# Pillow decodes run lengths in Python, and fills 255 rows at once where a code moves down.
_MAX_RLE_WIDTH, _MAX_RLE_BYTES = 2**16 - 1, 2**24
_COMPRESSIONS = {
    # Pillow before version 13 returns wrong pixels.
    _RLE4: "BMP with 4-bit run lengths",
    4: "BMP with JPEG inside",
    5: "BMP with PNG inside",
    6: "BMP with masks of opacity behind its header",
}
# Depths that Pillow reads, by kind of compression.
_DEPTHS = {_PLAIN: (1, 4, 8, 16, 24, 32), _RLE8: (8,), _MASKS: (16, 32)}


def decode_bmp(data: bytes) -> Pixels:
    """Decode a BMP file.

    Args:
        data: Content of the file.

    Returns:
        RGB pixels of 8 bits.

    Raises:
        DamagedImageError: The file is cut short or damaged.
        UnsupportedImageError: The file has a header, a compression, a depth or masks that edgead does not read.
        LargeImageError: The image has too many pixels.
    """
    from PIL import BmpImagePlugin

    try:
        height, width, bits, compression, begin = _read_header(data)
    except struct.error as error:
        raise DamagedImageError("its header is cut short or damaged") from error
    check_size(height, width)
    if bits not in _DEPTHS.get(compression, ()):
        raise UnsupportedImageError(
            _COMPRESSIONS.get(compression, f"{bits}-bit BMP with compression {compression}")
        )
    if compression == _RLE8 and (width > _MAX_RLE_WIDTH or len(data) > _MAX_RLE_BYTES):
        raise UnsupportedImageError(
            f"run-length BMP of more than {_MAX_RLE_WIDTH} columns or {_MAX_RLE_BYTES} bytes"
        )
    # Each row is padded to four bytes. Pillow would read rows of other data if the pixels began elsewhere.
    rows = (width * bits + 31) // 32 * 4 * height if compression in (_PLAIN, _MASKS) else 0
    if begin > len(data) or len(data) - begin < rows:
        raise DamagedImageError("it ends before its image does")
    try:
        with BmpImagePlugin.BmpImageFile(io.BytesIO(data)) as image:
            if image.mode == "RGBA":
                decoded = np.array(image)
                return Pixels(decoded[..., :3], alpha=decoded[..., 3:])
            return Pixels(np.array(image.convert("RGB")))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError and others.
        if "Unsupported" in str(error):
            raise UnsupportedImageError(f"{bits}-bit BMP with unusual colour masks or palette") from error
        raise DamagedImageError("its compressed data is damaged or ends before its image does") from error


def _read_header(data: bytes) -> tuple[int, int, int, int, int]:
    """Return height, width, bits of a pixel, kind of compression, and the offset of the pixels."""
    begin, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes not in _HEADERS:
        raise UnsupportedImageError(f"BMP with a header of {header_bytes} bytes")
    if header_bytes == _CORE_BYTES:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return height, width, bits, _PLAIN, begin
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if header_bytes == _OS2_BYTES and compression >= _MASKS:
        raise UnsupportedImageError("OS/2 BMP with Huffman or 24-bit RLE compression")
    return abs(height), width, bits, compression, begin
