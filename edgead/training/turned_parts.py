"""Training with `--fit turn`: a check of the good images, and the advice to use it."""

from __future__ import annotations

import numpy as np

from edgead.data import LoadedImages
from edgead.data.stored_images import Images
from edgead.errors import DataError
from edgead.imaging.frame import cut_image
from edgead.imaging.preprocess import SIZE_STEP_PX, ModelSize
from edgead.imaging.turned_framing import TurnedFraming, images_without_part, size_needed
from edgead.imaging.view import View

_SAMPLE = 24
# Length of the mean of the unit vectors of all angles: 1 for parts that lie alike, 0 for evenly spread ones.
_ALIKE = 0.7
# Turned parts of at most this share of the image's height leave the ground away.
_LOW = 0.75
# Advice for images in which no part is found, by whether a region of interest is given.
_ROI = {False: "give --roi x,y,width,height around the parts", True: "give another --roi around the parts"}


def check_turned(loaded: LoadedImages, size: ModelSize) -> None:
    """Check the good images of a training with `--fit turn`; images of another view pass.

    Args:
        loaded: The images.
        size: Size of the images that the model takes.

    Raises:
        DataError: No part was found in an image, or the size would cut a part.
    """
    if missing := images_without_part(loaded.framings):
        raise DataError(
            f"no part on a plain ground found in {len(missing)} of {len(loaded.samples)} good images, the first: "
            f"{loaded.samples[missing[0]].path}",
            hint=f"remove such images, {_ROI[bool(loaded.samples[0].view.roi)]}, or leave out --fit turn",
        )
    height, width = size_needed(loaded.framings)
    if height > size.height_px or width > size.width_px:
        steps = SIZE_STEP_PX
        raise DataError(
            f"turned parts take {width}x{height} pixels of an image as wide as the model's, which has "
            f"{size.width_px}x{size.height_px}",
            hint=f"give --size {-(-height // steps) * steps}x{size.width_px}"
            if width <= size.width_px
            else "give images with more room beside the parts, or leave out --fit turn",
        )


def turn_hint(images: Images, size: ModelSize) -> str | None:
    """Return the advice to turn the parts alike, if it saves pixels.

    Args:
        images: Good images of one part, (N, H, W, 3) uint8 RGB at the model's size.
        size: Size of the images that the model takes.

    Returns:
        The advice with the size to train with; None if the ground is not plain, the parts lie alike already, or they
        are about round.
    """
    sample = images[np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))]
    framings = [cut_image(image, View(fit="turn"), size)[0] for image in sample]
    parts = [one.part for one in framings if isinstance(one, TurnedFraming) and one.part is not None]
    if not parts or len(parts) < len(sample):
        return None
    angles = np.array([part.placement.angle for part in parts])
    height_px, width_px = size_needed(framings)
    if (
        abs(np.exp(1j * angles).mean()) > _ALIKE
        or height_px > _LOW * size.height_px
        or width_px > size.width_px
    ):
        return None
    height_px = -(-height_px // SIZE_STEP_PX) * SIZE_STEP_PX
    advice = f"--fit turn --size {height_px}x{size.width_px} may find more, in less time"
    return f"the parts lie at any angle on a plain ground: {advice}"
