"""Changes to a texture, so that a few textures give many: the seven that DRAEM draws from.

What each does is what PIL's ImageOps and ImageEnhance do under these names, within a level of rounding; `equalised` is
OpenCV's, which spreads a little wider, and `recoloured` turns hues, because less or more saturation leaves grey
textures grey. How strong they may be is chosen here, after DRAEM's script, which in brightness also adds, and
solarises only now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from edgead.types import UInt8Array

AUGMENTATIONS_EACH = 3

# The middle of a 3x3 mean counts five times.
_SOFT = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / np.float32(13)


def augmented(texture: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Change a texture, (H, W, 3) uint8 RGB, by three different ones of `AUGMENTATIONS`, in any order."""
    changes = tuple(AUGMENTATIONS.values())
    for index in rng.choice(len(changes), AUGMENTATIONS_EACH, replace=False):
        texture = changes[index](texture, rng)
    return texture


def posterised(image: UInt8Array, bits: int) -> UInt8Array:
    """Keep the highest 1 to 8 bits of each channel, the others become 0."""
    return np.asarray(image & (256 - 2 ** (8 - bits)), np.uint8)


def sharpened(image: UInt8Array, factor: float) -> UInt8Array:
    """Move away from a softened image: 0 gives that, 1 the image, 2 twice its detail. The rim stays as it is."""
    soft = image.astype(np.float32)
    soft[1:-1, 1:-1] = cv2.filter2D(soft, -1, _SOFT)[1:-1, 1:-1]
    return _bounded(soft + np.float32(factor) * (image - soft))


def solarised(image: UInt8Array, threshold: int) -> UInt8Array:
    """Invert what is at `threshold` or above it."""
    return np.where(image < threshold, image, 255 - image)


def equalised(image: UInt8Array) -> UInt8Array:
    """Make all levels of each channel about equally frequent; a channel of one level stays as it is."""
    return np.stack([cv2.equalizeHist(channel) for channel in np.moveaxis(image, 2, 0)], axis=2)


def brightened(image: UInt8Array, factor: float) -> UInt8Array:
    """Multiply by `factor`: 0 gives black, 1 the image."""
    return _bounded(image.astype(np.float32) * np.float32(factor))


def recoloured(image: UInt8Array, turn_deg: float, saturation: float) -> UInt8Array:
    """Turn the hues by degrees, red towards green, and add to the saturation, which is from 0 to 1."""
    hue, grey, value = cv2.split(cv2.cvtColor(image.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2HSV))
    turned = cv2.merge(
        [(hue + np.float32(turn_deg)) % np.float32(360), np.clip(grey + np.float32(saturation), 0, 1), value]
    )
    return _bounded(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB) * np.float32(255))


def auto_contrasted(image: UInt8Array) -> UInt8Array:
    """Stretch each channel to all of 0 to 255; a channel of one level stays as it is."""
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
"""Each of a strength that is drawn."""


def _bounded(image: npt.NDArray[np.floating]) -> UInt8Array:
    return np.asarray(np.clip(np.rint(image), 0, 255), np.uint8)
