"""Pseudo-anomalies after DRAEM: good images with synthetic anomalies and their masks, to train on.

The anomalies are the simulated anomalies of DRAEM (Zavrtanik et al., "DRAEM - A discriminatively trained reconstruction
embedding for surface anomaly detection", ICCV 2021). RSTPM trains its discriminator on the same images (Yamada, Kamiya,
Hotta 2022). Three of seven augmentations change a texture A. It is then blended into the image I on the spots M of
Perlin noise:

    I_a = (1 - M) I + (1 - beta) M I + beta M A          beta: opacity of the texture

The paper and the published script (github.com/VitjanZ/DRAEM) differ. The last column is this module:

                    paper                        script                            this module
    opacity         beta, from 0.1 to 1          1 - its beta, from 0.2 to 1       beta, from 0.2 to 1
    spots           noise above a random value   noise above 0.5                   noise above 0.5
    augmentations   three of seven               three of ten: the seven,          three of seven
                                                 gamma, inversion, rotation
    images          -                            half of the images stay good      all; a method mixes in good ones

The script's mask is all of M. Here the mask is the set of pixels that differ, and anomalies that nobody would see are
drawn again.
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
# Smallest mean change of an anomaly's pixels, in grey levels; a pixel counts by its channel that differs most.
CHANGE_MIN = 12.0
TRIES = 50


def pseudo_anomalies(
    images: UInt8Array, textures: Textures, rng: np.random.Generator
) -> tuple[UInt8Array, BoolArray]:
    """Add one anomaly of one or more spots to a copy of each image.

    An anomaly that is too small or too faint, because the texture looks like the image there, is drawn again.

    Args:
        images: Good images, (N, H, W, 3) uint8 RGB. They are not changed.
        textures: Source of the textures that fill the spots.
        rng: Random generator; it determines the result.

    Returns:
        The copies, (N, H, W, 3) uint8 RGB, and their masks, (N, H, W) bool, True exactly where a pixel differs in any
        channel. A mask is never empty and never the whole image: it covers a share of the image from `SMALLEST` to
        `LARGEST` of `edgead.data.pseudo_anomalies.perlin`.

    Raises:
        ValueError: `images` has another shape or dtype.
        DataError: `TRIES` textures in a row do not show on an image, or `textures` cannot be read.
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
    """Add an anomaly to a copy of one image (H, W, 3); return the copy and the mask (H, W)."""
    height, width = image.shape[:2]
    for _ in range(TRIES):
        within = perlin_mask(height, width, rng)
        texture = augmented(textures.draw(height, width, rng), rng)
        disturbed = blended(image, texture, within, rng.uniform(OPACITY_MIN, 1.0))
        change = cv2.absdiff(disturbed, image).max(axis=2)
        mask = change > 0
        # Rounding and equal colours leave some pixels of the spots unchanged, so the area of the mask is checked.
        if np.count_nonzero(mask) >= SMALLEST * mask.size and change[mask].mean() >= CHANGE_MIN:
            return disturbed, mask
    raise DataError(
        f"{TRIES} textures in a row do not show on an image of {height} x {width}",
        hint="give textures that look less like the images",
    )


def blended(image: UInt8Array, texture: UInt8Array, within: BoolArray, opacity: float) -> UInt8Array:
    """Blend a texture into an image by the formula of the module, and round.

    Args:
        image: Image I, (H, W, 3) uint8.
        texture: Texture A, (H, W, 3) uint8.
        within: Spots M, (H, W) bool.
        opacity: Opacity beta of the texture, from 0 to 1.

    Returns:
        Blended image, (H, W, 3) uint8.
    """
    result: UInt8Array = image.copy()
    result[within] = np.rint((1.0 - opacity) * image[within] + opacity * texture[within])
    return result
