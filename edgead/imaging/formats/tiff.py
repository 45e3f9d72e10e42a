"""TIFF and BigTIFF, read by tifffile, because OpenCV returns wrong pixels for some of their many variants.

tifffile alone cannot unpack LZW. Pillow does it for 8 bits; OpenCV does it for 16 bits, in the variants that it reads
right, and reports damage there.
"""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import math
import warnings
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgead.imaging.formats.exif import known_orientation
from edgead.imaging.formats.pixels import (
    DamagedImageError,
    LargeImageError,
    Pixels,
    Samples,
    UnsupportedImageError,
    check_size,
    pixels_from_opencv,
)

if TYPE_CHECKING:
    from tifffile import TiffPage

_BIG_ENDIAN_BIGTIFF = b"MM\0+"
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", _BIG_ENDIAN_BIGTIFF)

_ORIENTATION, _LARGEST_VALUE = 274, 341
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
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
# Two numbers of Deflate; uncompressed is 1, PackBits 32773.
_DEFLATE = (8, 32946)
_PACKBITS = 32773
_COMPRESSIONS = (1, _LZW, *_DEFLATE, _PACKBITS)
_PREMULTIPLIED, _STRAIGHT_OPACITY = 1, 2
_SEPARATE_PLANES = 2
# Largest values of cameras of 10, 12 and 14 bits; any other value is a property of the one image.
_CAMERA_PEAKS = (2**10 - 1, 2**12 - 1, 2**14 - 1)
_MAX_SAMPLES = 16
# Packed bytes of a file and unpacked bytes of a strip: tifffile alone unpacks in Python, and keeps a byte in eight.
_MAX_PACKBITS_BYTES = 2**25


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
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
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
    if not (3 if photometric == _RGB else 1) <= page.samplesperpixel <= _MAX_SAMPLES or page.imagedepth != 1:
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
        return _lzw_of_16_bits(page, data, orientation) if depth == 16 else _lzw_of_8_bits(page, data)
    samples = _samples(page, data)
    peak = 2**depth - 1
    if page.photometric == _PALETTE:
        return Pixels(_coloured(samples[..., 0], page.colormap), orientation=orientation)
    colours = 3 if page.photometric == _RGB else 1
    values, alpha = samples[..., :colours], None
    if page.samplesperpixel > colours:
        # A file that does not say what its fourth sample is has an opacity there, as most programs read it.
        kinds = page.extrasamples or ((_STRAIGHT_OPACITY,) if page.samplesperpixel == colours + 1 else ())
        if kinds[:1] == (_STRAIGHT_OPACITY,):
            alpha = samples[..., colours : colours + 1]
    largest = tags.valueof(_LARGEST_VALUE)
    largest = {largest} if isinstance(largest, int) else set(largest or ())
    if depth == 16 and len(largest) == 1 and largest <= set(_CAMERA_PEAKS):
        peak = largest.pop()
    return Pixels(values, peak, alpha, page.photometric == _WHITE_IS_ZERO, orientation)


def _samples(page: TiffPage, data: bytes) -> Samples:
    """Return the samples of the pixels, (H, W, samples), uint8 or uint16."""
    row_bytes = (page.imagewidth * page.samplesperpixel * page.bitspersample + 7) // 8
    if int(page.compression) == 1 and sum(page.databytecounts) < row_bytes * page.imagelength:
        raise DamagedImageError("it ends before its image does")
    if int(page.compression) in (*_DEFLATE, _PACKBITS):
        _check_unpacked(page, data)
    values = page.asarray(maxworkers=1)
    if page.samplesperpixel == 1:
        values = values.reshape(page.imagelength, page.imagewidth, 1)
    elif page.planarconfig == _SEPARATE_PLANES:
        values = np.moveaxis(values, 0, 2)
    return np.asarray(values, np.uint8 if page.bitspersample <= 8 else np.uint16)


def _check_unpacked(page: TiffPage, data: bytes) -> None:
    """Check the unpacked length of each piece: tifffile would unpack a piece to any length."""
    rows, columns, *samples = page.chunks
    if not page.is_tiled:
        rows = min(rows, page.imagelength)
    most = rows * ((columns * math.prod(samples) * page.bitspersample + 7) // 8)
    is_packbits = int(page.compression) == _PACKBITS
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


def _lzw_of_8_bits(page: TiffPage, data: bytes) -> Pixels:
    """Decode LZW with Pillow, which also applies palette, photometric sense and orientation."""
    from PIL import TiffImagePlugin

    if data.startswith(_BIG_ENDIAN_BIGTIFF):
        raise UnsupportedImageError("big-endian BigTIFF with LZW compression")
    if page.samplesperpixel == 2:
        raise UnsupportedImageError("grey LZW TIFF with opacity")
    _silence_libtiff()
    with warnings.catch_warnings():
        # Pillow warns of a damaged directory, where this is an error.
        warnings.simplefilter("error")
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    with image:
        image.load()
        if image.mode in ("1", "L", "P", "RGB"):
            return Pixels(np.array(image.convert("RGB")))
        if image.mode == "RGBA" and page.extrasamples[:1] != (_PREMULTIPLIED,):
            decoded = np.array(image)
            return Pixels(decoded[..., :3], alpha=decoded[..., 3:])
        raise UnsupportedImageError(f"LZW TIFF of {page.samplesperpixel} samples, mode {image.mode}")


def _lzw_of_16_bits(page: TiffPage, data: bytes, orientation: int) -> Pixels:
    """Decode LZW with OpenCV; only what it reads right."""
    if page.photometric not in (_BLACK_IS_ZERO, _RGB) or page.samplesperpixel not in (1, 3, 4):
        raise UnsupportedImageError("16-bit LZW TIFF with a palette, grey with opacity, or white as zero")
    if page.samplesperpixel > 1 and page.planarconfig == _SEPARATE_PLANES:
        raise UnsupportedImageError("planar 16-bit LZW TIFF")
    if page.fillorder != 1 or (
        page.samplesperpixel == 4 and page.extrasamples not in ((), (_STRAIGHT_OPACITY,))
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
