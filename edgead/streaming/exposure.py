"""Detection of images without light and of overexposed images, whose score says nothing about the part.

Noise is averaged out first, because the noise of a sensor in the dark has bright pixels. The images that the bundle
keeps widen the limits: with dark-field light a good part may be almost black.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from edgead.streaming.quantile import quantile
from edgead.types import UInt8Array

DARK_LEVEL = 32.0
BRIGHT_LEVEL = 245.0
# Images may differ from those of the bundle by this factor before the limits count them as dark or overexposed.
_MARGIN = 2.0
_LONGEST_SIDE_PX = 256
_AVERAGED_PX = 4
_LEVELS = np.arange(256)


@dataclass(frozen=True, slots=True)
class ExposureLimits:
    """Limits of the brightness of images, in levels of 0 to 255.

    Attributes:
        dark: Images whose brightest hundredth is darker are dark.
        bright: Images whose darkest hundredth is brighter are overexposed.
    """

    dark: float = DARK_LEVEL
    bright: float = BRIGHT_LEVEL

    @classmethod
    def from_images(cls, images: Iterable[UInt8Array]) -> ExposureLimits:
        """Make limits that the images of a bundle keep.

        Args:
            images: Images, (H, W, 3) uint8 RGB; none for the general limits.
        """
        dark, bright = DARK_LEVEL, BRIGHT_LEVEL
        for image in images:
            darkest, brightest = exposure(image)
            dark = min(dark, brightest / _MARGIN)
            bright = max(bright, 255.0 - (255.0 - darkest) / _MARGIN)
        return cls(dark, bright)


def exposure(image: UInt8Array) -> tuple[float, float]:
    """Measure the darkest and the brightest hundredth of an image without its noise.

    Args:
        image: Image, (H, W, 3) uint8 RGB.

    Returns:
        The 1st and the 99th percentile of the grey values, averaged over squares of the image.
    """
    step = max(1, max(image.shape[:2]) // _LONGEST_SIDE_PX)
    # Rows first, because single pixels of three bytes are slow to copy.
    grey = np.ascontiguousarray(
        cv2.cvtColor(np.ascontiguousarray(image[::step]), cv2.COLOR_RGB2GRAY)[:, ::step]
    )
    size = max(1, grey.shape[1] // _AVERAGED_PX), max(1, grey.shape[0] // _AVERAGED_PX)
    averaged = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    # Sorted by counting, which takes a third of the time.
    levels = np.repeat(_LEVELS, np.bincount(averaged.ravel(), minlength=256))
    return quantile(levels, 0.01), quantile(levels, 0.99)
