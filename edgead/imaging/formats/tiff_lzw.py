"""TIFF with LZW compression, which tifffile alone cannot unpack.

Pillow does it for 8 bits; OpenCV does it for 16 bits, in the variants that it reads right, and reports damage there.
"""

from __future__ import annotations

import ctypes
import functools
import io
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgead.imaging.formats.pillow_warnings import warnings_as_errors
from edgead.imaging.formats.pixels import (
    DamagedImageError,
    Pixels,
    UnsupportedImageError,
    pixels_from_opencv,
)
from edgead.imaging.formats.tiff_tags import (
    BIG_ENDIAN_BIGTIFF,
    BLACK_IS_ZERO,
    PREMULTIPLIED,
    RGB,
    SEPARATE_PLANES,
    STRAIGHT_OPACITY,
)

if TYPE_CHECKING:
    from tifffile import TiffPage


@functools.cache
def _silence_libtiff() -> None:
    """Stop libtiff in Pillow from printing errors to the terminal; Pillow raises them, and itself stops warnings."""
    from PIL import _imaging

    library = ctypes.CDLL(_imaging.__file__)
    # Other builds of Pillow do not export it.
    if hasattr(library, "TIFFSetErrorHandler"):
        library.TIFFSetErrorHandler.argtypes = [ctypes.c_void_p]
        library.TIFFSetErrorHandler.restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(None)


def lzw_of_8_bits(page: TiffPage, data: bytes) -> Pixels:
    """Decode LZW with Pillow, which also applies palette, photometric sense and orientation.

    Args:
        page: Image with samples of at most 8 bits.
        data: Content of the file.

    Returns:
        RGB pixels, uint8.

    Raises:
        UnsupportedImageError: The file is of a kind that Pillow does not read.
        Exception: The data is damaged.
    """
    from PIL import TiffImagePlugin

    if data.startswith(BIG_ENDIAN_BIGTIFF):
        raise UnsupportedImageError("big-endian BigTIFF with LZW compression")
    if page.samplesperpixel == 2:
        raise UnsupportedImageError("grey LZW TIFF with opacity")
    _silence_libtiff()
    # Pillow warns of a damaged directory, where this is an error.
    with warnings_as_errors():
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    with image:
        image.load()
        if image.mode in ("1", "L", "P", "RGB"):
            return Pixels(np.array(image.convert("RGB")))
        if image.mode == "RGBA" and page.extrasamples[:1] != (PREMULTIPLIED,):
            decoded = np.array(image)
            return Pixels(decoded[..., :3], alpha=decoded[..., 3:])
        raise UnsupportedImageError(f"LZW TIFF of {page.samplesperpixel} samples, mode {image.mode}")


def lzw_of_16_bits(page: TiffPage, data: bytes, orientation: int) -> Pixels:
    """Decode LZW with OpenCV; only what it reads right.

    Args:
        page: Image with samples of 16 bits.
        data: Content of the file.
        orientation: EXIF orientation, from 1 to 8.

    Returns:
        Grey or RGB pixels, uint16.

    Raises:
        UnsupportedImageError: OpenCV reads this kind wrong.
        DamagedImageError: The data is damaged.
    """
    if page.photometric not in (BLACK_IS_ZERO, RGB) or page.samplesperpixel not in (1, 3, 4):
        raise UnsupportedImageError("16-bit LZW TIFF with a palette, grey with opacity, or white as zero")
    if page.samplesperpixel > 1 and page.planarconfig == SEPARATE_PLANES:
        raise UnsupportedImageError("planar 16-bit LZW TIFF")
    if page.fillorder != 1 or (
        page.samplesperpixel == 4 and page.extrasamples not in ((), (STRAIGHT_OPACITY,))
    ):
        raise UnsupportedImageError(
            "16-bit LZW TIFF with reversed bits or with a fourth sample that is no opacity"
        )
    if orientation != 1:
        raise UnsupportedImageError("16-bit LZW TIFF with an orientation")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.shape[:2] != (page.imagelength, page.imagewidth):
        raise DamagedImageError("its compressed data is damaged")
    return pixels_from_opencv(decoded, 1)
