"""Pixels as a file stores them, and the two reasons why a file has none: it is damaged, or it is unsupported."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

# An image is untrusted input, so this limit is checked before an image is decoded. 2**26 pixels are 8192 x 8192.
MAX_PIXELS = 2**26

Samples = npt.NDArray[np.uint8 | np.uint16]


class UnsupportedImageError(Exception):
    """A file has a property that edgead does not read; the text names it, such as "CMYK JPEG"."""


class DamagedImageError(Exception):
    """A file is cut short or damaged; the text says where."""


class LargeImageError(Exception):
    """An image has too many pixels; the text is its size."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Decoded pixels, as the file stores them.

    Attributes:
        values: Grey (H, W, 1) or RGB (H, W, 3), uint8 or uint16. Rows and columns are not turned yet.
        peak: Value of white, such as 255. With `inverted` it is the value of black, and 0 is white.
        alpha: Opacity (H, W, 1) with the type of `values`, from 0 to the largest value of that type. None if all
            pixels are opaque, or their colour is already multiplied by their opacity.
        inverted: Whether 0 is white.
        orientation: EXIF orientation, from 1 to 8.
    """

    values: Samples
    peak: int = 255
    alpha: Samples | None = None
    inverted: bool = False
    orientation: int = 1


def check_size(height: int, width: int) -> None:
    """Check the size of an image before it is decoded.

    Args:
        height: Height in pixels.
        width: Width in pixels.

    Raises:
        DamagedImageError: A side has no pixels.
        LargeImageError: There are more than `MAX_PIXELS` pixels.
    """
    if height < 1 or width < 1:
        raise DamagedImageError(f"its size is {height} x {width}")
    if height * width > MAX_PIXELS:
        raise LargeImageError(f"{height} x {width} pixels")


def pixels_from_opencv(decoded: Samples, orientation: int) -> Pixels:
    """Convert what OpenCV decodes: grey (H, W), BGR (H, W, 3) or BGRA (H, W, 4).

    Args:
        decoded: Decoded image, uint8 or uint16.
        orientation: EXIF orientation, from 1 to 8.

    Returns:
        Pixels in RGB order.
    """
    peak = int(np.iinfo(decoded.dtype).max)
    if decoded.ndim == 2:
        return Pixels(decoded[..., np.newaxis], peak, orientation=orientation)
    if decoded.shape[2] == 3:
        return Pixels(_as_samples(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)), peak, orientation=orientation)
    colour = _as_samples(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGB))
    return Pixels(colour, peak, decoded[..., 3:], orientation=orientation)


def _as_samples(image: cv2.typing.MatLike) -> Samples:
    return np.asarray(image, image.dtype)
