"""TIFF and BigTIFF, read by tifffile, because OpenCV returns wrong pixels for some of their many variants.

tifffile alone cannot unpack LZW (`edgead.imaging.formats.tiff_lzw`), and unpacks other data to any length
(`edgead.imaging.formats.tiff_unpacked`).
"""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING

import numpy as np

from edgead.imaging.formats.exif import known_orientation
from edgead.imaging.formats.pixels import (
    DamagedImageError,
    LargeImageError,
    Pixels,
    Samples,
    UnsupportedImageError,
    check_size,
)
from edgead.imaging.formats.tiff_lzw import lzw_of_8_bits, lzw_of_16_bits
from edgead.imaging.formats.tiff_tags import (
    BIG_ENDIAN_BIGTIFF,
    BLACK_IS_ZERO,
    DEFLATE,
    PACKBITS,
    PALETTE,
    RGB,
    SEPARATE_PLANES,
    STRAIGHT_OPACITY,
    WHITE_IS_ZERO,
)
from edgead.imaging.formats.tiff_unpacked import check_unpacked

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", BIG_ENDIAN_BIGTIFF)

_ORIENTATION, _LARGEST_VALUE = 274, 341
_PHOTOMETRICS = {
    4: "TIFF of a transparency mask",
    5: "CMYK TIFF",
    6: "YCbCr TIFF",
    8: "CIE Lab TIFF",
    9: "ICC Lab TIFF",
    10: "ITU Lab TIFF",
    32803: "TIFF of a raw sensor image (CFA)",
    32844: "LogL TIFF",
    32845: "LogLuv TIFF",
    34892: "TIFF of a raw sensor image (linear raw)",
}
_FORMATS = {2: "signed {}-bit TIFF", 3: "{}-bit float TIFF", 5: "complex TIFF", 6: "complex float TIFF"}
_LZW = 5
_COMPRESSIONS = (1, _LZW, *DEFLATE, PACKBITS)
# Largest values of cameras of 10, 12 and 14 bits; any other value is a property of the one image.
_CAMERA_PEAKS = (2**10 - 1, 2**12 - 1, 2**14 - 1)
_MAX_SAMPLES = 16


def decode_tiff(data: bytes) -> Pixels:
    """Decode the first image of a TIFF file.

    Args:
        data: Content of the file.

    Returns:
        Grey or RGB pixels. Depths up to 8 bits are uint8, 16 bits are uint16.

    Raises:
        DamagedImageError: The file is cut short or damaged.
        UnsupportedImageError: The file has another photometric interpretation, compression, depth or sample format.
        LargeImageError: The image has too many pixels.
    """
    import tifffile

    # Its remarks about a damaged file; the error says what matters.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        # NumPy warns where the values of a damaged tag overflow.
        with np.errstate(over="ignore"), tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            _check(page, len(data))
            return _pixels(page, data)
    except (UnsupportedImageError, DamagedImageError, LargeImageError):
        raise
    except Exception as error:  # tifffile raises many types for a damaged file.
        raise DamagedImageError(
            f"its TIFF structure or its data is damaged ({type(error).__name__})"
        ) from error


def _check(page: TiffPage, file_bytes: int) -> None:
    """Refuse what is not read, before pixels are allocated."""
    check_size(page.imagelength, page.imagewidth)
    photometric = page.tags.valueof(262)
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE):
        kind = "TIFF without a photometric interpretation"
        if photometric is not None:
            kind = _PHOTOMETRICS.get(int(photometric), f"TIFF of photometric kind {int(photometric)}")
        raise UnsupportedImageError(kind)
    bits = page.tags.valueof(258, 1)
    depths = sorted({bits} if isinstance(bits, int) else set(bits))
    if len(depths) != 1:
        raise UnsupportedImageError(f"TIFF with samples of {' and '.join(map(str, depths))} bits")
    (depth,) = depths
    if page.sampleformat in _FORMATS:
        raise UnsupportedImageError(_FORMATS[page.sampleformat].format(depth))
    if depth not in (1, 8, 16) or (depth == 1 and page.samplesperpixel > 1):
        raise UnsupportedImageError(f"{depth}-bit TIFF")
    compression = int(page.compression)
    if compression not in _COMPRESSIONS:
        raise UnsupportedImageError(f"TIFF with {_name_of_compression(compression)} compression")
    if int(page.predictor) not in (1, 2) or (page.predictor == 2 and depth == 1):
        raise UnsupportedImageError(f"{depth}-bit TIFF with predictor {int(page.predictor)}")
    if not (3 if photometric == RGB else 1) <= page.samplesperpixel <= _MAX_SAMPLES or page.imagedepth != 1:
        raise UnsupportedImageError(f"TIFF with {page.samplesperpixel} samples for each pixel")
    # Five samples and more need the memory of several images of RGB with opacity.
    check_size(page.imagelength, page.imagewidth * -(-page.samplesperpixel // 4))
    if sum(page.databytecounts) > file_bytes:
        # The pieces overlap, which no writer produces. A small file could keep a decoder busy for hours.
        raise DamagedImageError("its strips or tiles overlap or lie outside the file")
    if page.is_tiled and page.tilelength * page.tilewidth > 2**20 + 4 * page.imagelength * page.imagewidth:
        raise UnsupportedImageError("TIFF with tiles that are much larger than the image")
    # tifffile fills what a file lacks with zeros.
    if not len(page.dataoffsets) == len(page.databytecounts) == math.prod(page.chunked):
        raise DamagedImageError("the number of its strips or tiles does not fit its size")
    if not all(page.databytecounts) or not all(page.dataoffsets):
        raise DamagedImageError("it lacks strips or tiles")


def _pixels(page: TiffPage, data: bytes) -> Pixels:
    """Decode the samples, and interpret them."""
    tags, depth = page.tags, page.bitspersample
    orientation = known_orientation(tags.valueof(_ORIENTATION))
    if int(page.compression) == _LZW:
        return lzw_of_16_bits(page, data, orientation) if depth == 16 else lzw_of_8_bits(page, data)
    samples = _samples(page, data)
    peak = 2**depth - 1
    if page.photometric == PALETTE:
        return Pixels(_coloured(samples[..., 0], page.colormap), orientation=orientation)
    colours = 3 if page.photometric == RGB else 1
    values, alpha = samples[..., :colours], None
    if page.samplesperpixel > colours:
        # A file that does not say what its fourth sample is has an opacity there, as most programs read it.
        kinds = page.extrasamples or ((STRAIGHT_OPACITY,) if page.samplesperpixel == colours + 1 else ())
        if kinds[:1] == (STRAIGHT_OPACITY,):
            alpha = samples[..., colours : colours + 1]
    largest = tags.valueof(_LARGEST_VALUE)
    largest = {largest} if isinstance(largest, int) else set(largest or ())
    if depth == 16 and len(largest) == 1 and largest <= set(_CAMERA_PEAKS):
        peak = largest.pop()
    return Pixels(values, peak, alpha, page.photometric == WHITE_IS_ZERO, orientation)


def _samples(page: TiffPage, data: bytes) -> Samples:
    """Return the samples of the pixels, (H, W, samples), uint8 or uint16."""
    row_bytes = (page.imagewidth * page.samplesperpixel * page.bitspersample + 7) // 8
    if int(page.compression) == 1 and sum(page.databytecounts) < row_bytes * page.imagelength:
        raise DamagedImageError("it ends before its image does")
    if int(page.compression) in (*DEFLATE, PACKBITS):
        check_unpacked(page, data)
    values = page.asarray(maxworkers=1)
    if page.samplesperpixel == 1:
        values = values.reshape(page.imagelength, page.imagewidth, 1)
    elif page.planarconfig == SEPARATE_PLANES:
        values = np.moveaxis(values, 0, 2)
    return np.asarray(values, np.uint8 if page.bitspersample <= 8 else np.uint16)


def _coloured(index: Samples, colours: Samples | None) -> Samples:
    """Apply a palette of 16-bit colours (3, N)."""
    if colours is None or index.max(initial=0) >= colours.shape[1]:
        raise DamagedImageError("its palette is incomplete")
    table = colours.astype(np.uint32).T
    # Old writers store 8-bit colours; then no value is above 255.
    if table.max() > 255:
        table = (table + 128) // 257
    return np.asarray(table.astype(np.uint8)[index], np.uint8)


def _name_of_compression(compression: int) -> str:
    names = {
        2: "CCITT",
        3: "CCITT fax 3",
        4: "CCITT fax 4",
        6: "old JPEG",
        7: "JPEG",
        34712: "JPEG 2000",
        34887: "LERC",
        34925: "LZMA",
        50000: "Zstandard",
        50001: "WebP",
        50002: "JPEG XL",
        52546: "JPEG XL",
    }
    return names.get(compression, f"unknown ({compression})")
