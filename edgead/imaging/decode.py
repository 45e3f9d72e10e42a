"""Reading of image files: from the bytes of a file to 8-bit RGB pixels.

Every image file is read here, in training, builds, evaluation and streams. The rules are the same for all formats:

- An image decodes to the pixels that the format defines, or it is refused by the name of the property.
- A file that is cut short or damaged inside is refused, instead of read with grey or black in place of lost pixels.
- The EXIF orientation is applied.
- Opacity is composited on black. Colour profiles are not applied.
- Deep values are scaled by the largest value of their depth, whatever the maximum of the image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgead.errors import ImageError, InputError
from edgead.imaging.formats import bmp, jpeg, png, tiff, webp
from edgead.imaging.formats.pixels import (
    MAX_PIXELS,
    DamagedImageError,
    LargeImageError,
    Pixels,
    Samples,
    UnsupportedImageError,
)
from edgead.types import UInt8Array

T = TypeVar("T")
Scalar = TypeVar("Scalar", bound=np.generic)

MAX_FILE_BYTES = 256 * 2**20

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_FORMATS = "PNG, JPEG, BMP, TIFF or WebP"

BIT_DEPTHS = (10, 12, 14)
"""Depths of cameras that save their values in samples of 16 bits."""

# Formats that edgead does not read, by bytes at an offset of the file, for a message that names them.
_OTHERS = (
    (0, b"GIF8", "GIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"8BPS", "PSD"),
)
_COPY_AGAIN = "copy it again from its source, or remove it"


def read_image(path: Path, bit_depth: int | None = None) -> UInt8Array:
    """Read a PNG, JPEG, BMP, TIFF or WebP file. The format follows from the content, not from the name.

    Args:
        path: Image file.
        bit_depth: Depth of the values in samples of 16 bits, one of `BIT_DEPTHS`. None for 16 bits, or the depth that
            the file records in the tag SMaxSampleValue of a TIFF.

    Returns:
        Image, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The file is missing, not an image, cut short or damaged, has a property that edgead does not read,
            has a value above `bit_depth`, is longer than `MAX_FILE_BYTES`, or has too many pixels.
    """
    return image_from_bytes(_read_bounded(path), str(path), bit_depth)


def image_from_bytes(data: bytes, name: str, bit_depth: int | None = None) -> UInt8Array:
    """Decode the content of an image file as `read_image` does.

    Args:
        data: Content of the file.
        name: Name of the image, for messages.
        bit_depth: Depth of the values in samples of 16 bits; see `read_image`.

    Returns:
        Image, (H, W, 3) uint8 RGB, contiguous.

    Raises:
        ImageError: The image cannot be used; see `read_image`.
    """
    return _converted(data, name, lambda pixels: _rgb8_from_pixels(pixels, bit_depth))


def read_pixels(path: Path) -> tuple[Pixels, bytes]:
    """Read an image file, and decode its pixels as the file stores them.

    Args:
        path: Image file.

    Returns:
        The pixels, and the content of the file.

    Raises:
        ImageError: The image cannot be used; see `read_image`.
    """
    data = _read_bounded(path)
    return _converted(data, str(path), lambda pixels: pixels), data


def _converted(data: bytes, name: str, convert: Callable[[Pixels], T]) -> T:
    """Decode an image file and convert its pixels; translate every refusal into ImageError."""
    decoder = _decoder(data)
    if decoder is None:
        other = next((kind for place, sign, kind in _OTHERS if data.startswith(sign, place)), None)
        if other is not None:
            raise ImageError(f"{name} is {other}, which edgead does not read", hint="save it as PNG")
        raise ImageError(f"{name} is not a {IMAGE_FORMATS} image", hint="remove it or save it as PNG")
    try:
        return convert(decoder(data))
    except UnsupportedImageError as error:
        raise ImageError(
            f"{name} is a {error}, which edgead does not read",
            hint="save it as grey or RGB with 8 or 16 bits",
        ) from error
    except LargeImageError as error:
        raise ImageError(
            f"{name} has {error}, more than the {MAX_PIXELS} allowed", hint="crop or shrink it"
        ) from error
    except DamagedImageError as error:
        raise ImageError(f"{name} is broken ({error})", hint=_COPY_AGAIN) from error
    except _DepthError as error:
        raise ImageError(
            f"{name} has {error}", hint="give the --bit-depth of the camera, or none for 16 bits"
        ) from error


def dark_text(images: UInt8Array, name: str) -> str | None:
    """Describe images of which all values stay under a sixteenth of the range.

    Values of 12 bits in samples of 16 bits, read as 16 bits, are such images.

    Args:
        images: One or several images, uint8.
        name: Name of the images, for the line.

    Returns:
        The line for a warning; None if a value is larger.
    """
    brightest = int(images.max(initial=0))
    # The largest value of 12 bits, 4095 of 65535, is rounded to 16.
    if brightest > 16:
        return None
    depths = ", ".join(map(str, BIT_DEPTHS))
    return (
        f"all values of {name} are at most {brightest} of 255; if a camera saved {depths} bits in files of 16 bits, "
        "train with --bit-depth"
    )


def check_bit_depth(bit_depth: int | None) -> None:
    """Check a depth from a user.

    Args:
        bit_depth: One of `BIT_DEPTHS`, or None.

    Raises:
        InputError: It is another number.
    """
    if bit_depth is not None and bit_depth not in BIT_DEPTHS:
        raise InputError(
            f"bit depth {bit_depth} is unknown", hint=f"give --bit-depth {', '.join(map(str, BIT_DEPTHS))}"
        )


class _DepthError(Exception):
    """A value is above the largest value of its depth; the text names it."""


def _decoder(data: bytes) -> Callable[[bytes], Pixels] | None:
    if data.startswith(png.SIGNATURE):
        return png.decode_png
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.decode_jpeg
    if data.startswith(bmp.SIGNATURE):
        return bmp.decode_bmp
    if data.startswith(tiff.SIGNATURES):
        return tiff.decode_tiff
    return webp.decode_webp if webp.is_webp(data) else None


def _rgb8_from_pixels(pixels: Pixels, bit_depth: int | None) -> UInt8Array:
    """Apply depth, photometric sense, opacity and orientation; return (H, W, 3) uint8 RGB, contiguous."""
    values, peak = pixels.values, pixels.peak
    if bit_depth is not None and values.dtype == np.uint16 and peak in _PEAKS_OF_16_BITS:
        peak = 2**bit_depth - 1
    if values.shape[2] == 3 and peak == 255 and pixels.alpha is None and not pixels.inverted:
        return np.ascontiguousarray(turned(np.asarray(values, np.uint8), pixels.orientation))
    if peak < np.iinfo(values.dtype).max and values.max() > peak:
        raise _DepthError(f"the value {values.max()}, above {peak}, the largest of {peak.bit_length()} bits")
    table = ((np.arange(peak + 1, dtype=np.uint32) * 510 + peak) // (2 * peak)).astype(np.uint8)
    height, width = values.shape[:2]
    image = np.empty((height, width, 3), np.uint8)
    # In pieces, because opacity and the table need several times the memory of the samples.
    rows = max(1, _PIXELS_AT_ONCE // width)
    for start in range(0, height, rows):
        piece = values[start : start + rows]
        if pixels.inverted:
            piece = peak - piece
        if pixels.alpha is not None:
            piece = _on_black(piece, pixels.alpha[start : start + rows])
        image[start : start + rows] = table[piece]
    return np.ascontiguousarray(turned(image, pixels.orientation))


_PIXELS_AT_ONCE = 2**18
_PEAKS_OF_16_BITS = (2**16 - 1, *(2**depth - 1 for depth in BIT_DEPTHS))


def _on_black(values: Samples, alpha: Samples) -> Samples:
    """Composite on black: multiply by the opacity."""
    peak = np.uint32(np.iinfo(alpha.dtype).max)
    product = values.astype(np.uint32) * alpha.astype(np.uint32)
    return np.asarray((product + peak // 2) // peak, values.dtype)


def turned(image: npt.NDArray[Scalar], orientation: int) -> npt.NDArray[Scalar]:
    """Apply an EXIF orientation: 5 to 8 swap rows and columns, then some are mirrored.

    Args:
        image: Image, (H, W, ...).
        orientation: EXIF orientation, from 1 to 8.

    Returns:
        The image as a view, (H, W, ...) or (W, H, ...).
    """
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _read_bounded(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path} is not a file", hint="give the path of an image")
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError(
                    f"{path} has {status.st_size} bytes, more than the {MAX_FILE_BYTES} allowed",
                    hint="crop or shrink it",
                )
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ImageError(
            f"cannot read {path} ({error.strerror or error})", hint="check the path and its permissions"
        ) from error


def _open_without_waiting(name: str, flags: int) -> int:
    # To open a named pipe would block until it has a writer.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
