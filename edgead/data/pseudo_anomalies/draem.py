"""Good images with something wrong on them, and where: for methods that learn from what they are to find.

After DRAEM (Zavrtanik et al., "DRAEM - A discriminatively trained reconstruction embedding for surface anomaly
detection", ICCV 2021, on simulated anomalies), whose images RSTPM's discriminator takes too (Yamada, Kamiya, Hotta
2022). A texture A, changed by three of seven augmentations, is blended into the image I on the spots M of Perlin
noise:

    I_a = (1 - M) I + (1 - beta) M I + beta M A          beta: how opaque the texture is

Paper and published script (github.com/VitjanZ/DRAEM) differ, and this follows

                 paper                          script                         here
    opacity      beta, from 0.1 to 1            1 - its beta, from 0.2 to 1    beta, from 0.2 to 1
    spots        noise above a random value     noise above 0.5                noise above 0.5
    augmented    by three of seven              by three of ten: those,        by three of seven
                                                gamma, inversion, a turn
    how many     -                              half the images stay good    all; a method mixes them itself

The script's mask is all of M; here it is what differs, and anomalies that nobody would see are drawn again.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgead.data.pseudo_anomalies.augmentations import augmented
from edgead.data.pseudo_anomalies.perlin import SMALLEST, perlin_mask
from edgead.data.pseudo_anomalies.textures import Textures
from edgead.errors import DataError
from edgead.types import BoolArray, UInt8Array

OPACITY_MIN = 0.2
# The pixels of an anomaly differ by so many levels at least, in the mean, each by the channel that differs most.
CHANGE_MIN = 12.0
TRIES = 50


def pseudo_anomalies(
    images: UInt8Array, textures: Textures, rng: np.random.Generator
) -> tuple[UInt8Array, BoolArray]:
    """Put one anomaly, which may be of several spots, on a copy of each image; all follows from `rng`.

    images: (N, H, W, 3) uint8 RGB, left as they are. Returns the copies, and masks (N, H, W) bool, True exactly where a
    pixel differs in any channel: never nowhere and never everywhere, a share of the image from `SMALLEST` to
    `LARGEST` of `edgead.data.pseudo_anomalies.perlin`.

    An anomaly that is too small or too faint, because the texture looks like the image there, is drawn again; after
    `TRIES` draws in vain DataError is raised. Raises ValueError for another shape or dtype, and what
    `textures` raises.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images are (N, H, W, 3) uint8 RGB, not {images.shape} {images.dtype}")
    disturbed, masks = images.copy(), np.empty(images.shape[:3], np.bool_)
    for image, mask in zip(disturbed, masks, strict=True):
        image[:], mask[:] = _with_anomaly(image, textures, rng)
    return disturbed, masks


def _with_anomaly(
    image: UInt8Array, textures: Textures, rng: np.random.Generator
) -> tuple[UInt8Array, BoolArray]:
    height, width = image.shape[:2]
    for _ in range(TRIES):
        within = perlin_mask(height, width, rng)
        texture = augmented(textures.draw(height, width, rng), rng)
        disturbed = blended(image, texture, within, rng.uniform(OPACITY_MIN, 1.0))
        change = cv2.absdiff(disturbed, image).max(axis=2)
        mask = change > 0
        # Rounding and equal colours leave pixels of the spots as they were, so the share is asked of what differs.
        if np.count_nonzero(mask) >= SMALLEST * mask.size and change[mask].mean() >= CHANGE_MIN:
            return disturbed, mask
    raise DataError(
        f"{TRIES} textures in a row do not show on an image of {height} x {width}: "
        "give other textures, they are too much like the images"
    )


def blended(image: UInt8Array, texture: UInt8Array, within: BoolArray, opacity: float) -> UInt8Array:
    """The formula above, rounded: (H, W, 3) uint8 of image and texture of that shape. within: M, (H, W) bool."""
    result: UInt8Array = image.copy()
    result[within] = np.rint((1.0 - opacity) * image[within] + opacity * texture[within])
    return result
