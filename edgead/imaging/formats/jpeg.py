"""JPEG: decoded by libjpeg-turbo through simplejpeg, because OpenCV fills damaged parts and reports nothing."""

from __future__ import annotations

import struct

from edgead.imaging.formats.exif import orientation_from_exif
from edgead.imaging.formats.pixels import DamagedImageError, Pixels, UnsupportedImageError, check_size

SIGNATURE = b"\xff\xd8\xff"

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
_EXIF, _SCAN = 0xE1, 0xDA
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_HUFFMAN = (0xC0, 0xC1, 0xC2)


def decode_jpeg(data: bytes) -> Pixels:
    """Decode a JPEG file.

    Args:
        data: Content of the file.

    Returns:
        Grey or RGB pixels of 8 bits.

    Raises:
        DamagedImageError: The file is cut short, or its compressed data is damaged.
        UnsupportedImageError: The file is CMYK, lossless, arithmetic-coded, or has another depth than 8 bits.
        LargeImageError: The image has too many pixels.
    """
    components, orientation = _checked_header(data)
    from simplejpeg import decode_jpeg as decode

    try:
        # Strict: a warning of libjpeg, such as "premature end of data segment", is an error.
        values = decode(data, "GRAY" if components == 1 else "RGB", strict=True)
    except ValueError as error:
        raise DamagedImageError(str(error)) from error
    return Pixels(values.reshape(*values.shape[:2], components), orientation=orientation)


def _checked_header(data: bytes) -> tuple[int, int]:
    """Read the number of components and the orientation; refuse what is not read."""
    place, orientation = 2, 1
    try:
        while data[place] == 0xFF:
            marker = data[place + 1]
            if marker == 0xFF:
                place += 1
            elif marker in _BARE:
                place += 2
            elif marker in _FRAMES:
                precision, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
                _check_frame(marker, precision, components)
                check_size(height, width)
                return components, _orientation(data, place, orientation)
            else:
                orientation = _orientation_of_segment(data, place, orientation)
                place += 2 + _length(data, place)
    except (struct.error, IndexError):
        pass
    raise DamagedImageError("its header is cut short or damaged")


def _check_frame(marker: int, precision: int, components: int) -> None:
    if marker in _LOSSLESS:
        raise UnsupportedImageError("lossless JPEG")
    if marker not in _HUFFMAN:
        raise UnsupportedImageError("JPEG with arithmetic coding or several frames")
    if precision != 8:
        raise UnsupportedImageError(f"{precision}-bit JPEG")
    if components not in (1, 3):
        raise UnsupportedImageError("CMYK JPEG" if components == 4 else f"JPEG of {components} components")


def _orientation(data: bytes, place: int, orientation: int) -> int:
    """Look for the orientation in the segments after the frame header too; tables and EXIF have no fixed order."""
    try:
        while data[place] == 0xFF and data[place + 1] != _SCAN:
            orientation = _orientation_of_segment(data, place, orientation)
            place += 2 + _length(data, place)
    except (struct.error, IndexError):
        pass
    return orientation


def _orientation_of_segment(data: bytes, place: int, orientation: int) -> int:
    """Return the orientation that the segment at `place` records, `orientation` if it is another segment."""
    if data[place + 1] != _EXIF or data[place + 4 : place + 10] != b"Exif\0\0":
        return orientation
    return orientation_from_exif(data[place + 10 : place + 2 + _length(data, place)])


def _length(data: bytes, place: int) -> int:
    return int(struct.unpack_from(">H", data, place + 2)[0])
