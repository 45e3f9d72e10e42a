"""The seven augmentations of textures that DRAEM draws from: a few textures give many.

The functions agree with PIL's ImageOps and ImageEnhance within one rounding level, with two exceptions. `equalised` is
OpenCV's, which spreads the levels slightly wider. `recoloured` rotates hues, because a change of saturation leaves grey
textures grey. The strengths are chosen here, after DRAEM's script. The script also adds a constant to the brightness,
and solarises only sometimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from edgead.types import UInt8Array

AUGMENTATIONS_EACH = 3

# PIL's smoothing kernel: a 3x3 mean with a centre weight of five.
_SOFT = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / np.float32(13)


def augmented(texture: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Change a texture by three different augmentations of `AUGMENTATIONS`, in random order.

    Args:
        texture: Texture, (H, W, 3) uint8 RGB. It is not changed.
        rng: Random generator; it determines the result.

    Returns:
        Changed texture, (H, W, 3) uint8 RGB.
    """
    changes = tuple(AUGMENTATIONS.values())
    for index in rng.choice(len(changes), AUGMENTATIONS_EACH, replace=False):
        texture = changes[index](texture, rng)
    return texture


def posterised(image: UInt8Array, bits: int) -> UInt8Array:
    """Set the low bits of each channel to 0.

    Args:
        image: Image, (H, W, 3) uint8.
        bits: Number of high bits to keep, 1 to 8.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    return np.asarray(image & (256 - 2 ** (8 - bits)), np.uint8)


def sharpened(image: UInt8Array, factor: float) -> UInt8Array:
    """Soften or sharpen an image: extrapolate from its softened copy. The outermost pixels stay the same.

    Args:
        image: Image, (H, W, 3) uint8.
        factor: Strength: 0 gives the softened image, 1 the image itself, 2 twice its detail.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    soft = image.astype(np.float32)
    soft[1:-1, 1:-1] = cv2.filter2D(soft, -1, _SOFT)[1:-1, 1:-1]
    return _bounded(soft + np.float32(factor) * (image - soft))


def solarised(image: UInt8Array, threshold: int) -> UInt8Array:
    """Invert all values at or above a threshold.

    Args:
        image: Image, (H, W, 3) uint8.
        threshold: Smallest value that is inverted, 0 to 255.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    return np.where(image < threshold, image, 255 - image)


def equalised(image: UInt8Array) -> UInt8Array:
    """Equalise the histogram of each channel; a channel of one level stays the same.

    Args:
        image: Image, (H, W, 3) uint8.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    return np.stack([cv2.equalizeHist(channel) for channel in np.moveaxis(image, 2, 0)], axis=2)


def brightened(image: UInt8Array, factor: float) -> UInt8Array:
    """Multiply all values by a factor.

    Args:
        image: Image, (H, W, 3) uint8.
        factor: Factor: 0 gives black, 1 the image itself.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    return _bounded(image.astype(np.float32) * np.float32(factor))


def recoloured(image: UInt8Array, turn_deg: float, saturation: float) -> UInt8Array:
    """Rotate the hues, and add a constant to the saturation.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        turn_deg: Rotation of the hues in degrees, from red towards green.
        saturation: Summand of the saturation. The sum is clipped to 0 to 1.

    Returns:
        Changed image, (H, W, 3) uint8 RGB.
    """
    hue, grey, value = cv2.split(cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV))
    turned = cv2.merge(
        [(hue + np.float32(turn_deg)) % np.float32(360), np.clip(grey + np.float32(saturation), 0, 1), value]
    )
    return _bounded(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB) * np.float32(255))


def auto_contrasted(image: UInt8Array) -> UInt8Array:
    """Stretch each channel to the full range 0 to 255; a channel of one level stays the same.

    Args:
        image: Image, (H, W, 3) uint8.

    Returns:
        Changed image, (H, W, 3) uint8.
    """
    low, high = image.min(axis=(0, 1)).astype(int), image.max(axis=(0, 1)).astype(int)
    levels = np.arange(256)[:, None]
    stretched = np.clip(np.rint((levels - low) * (255 / np.maximum(high - low, 1))), 0, 255)
    table = np.where(high > low, stretched, levels).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


AUGMENTATIONS: Mapping[str, Callable[[UInt8Array, np.random.Generator], UInt8Array]] = MappingProxyType(
    {
        "posterise": lambda image, rng: posterised(image, int(rng.integers(1, 7))),
        "sharpness": lambda image, rng: sharpened(image, rng.uniform(0.0, 3.0)),
        "solarise": lambda image, rng: solarised(image, int(rng.integers(32, 129))),
        "equalise": lambda image, rng: equalised(image),
        "brightness": lambda image, rng: brightened(image, rng.uniform(0.5, 1.5)),
        "colour": lambda image, rng: recoloured(image, rng.uniform(-70.0, 70.0), rng.uniform(-0.2, 0.2)),
        "auto-contrast": lambda image, rng: auto_contrasted(image),
    }
)
"""Augmentations by name: functions of a texture (H, W, 3) uint8 and the generator that gives the strength."""


def _bounded(image: npt.NDArray[np.floating]) -> UInt8Array:
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
