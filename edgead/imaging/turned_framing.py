"""The framing of `--fit turn`: each image has its own, because each part lies in another place and at another angle.

Pixels of the model that lie outside of the image get the colour of the ground, and the map is 0 there. An image without
a part on a plain ground is not turned: the model sees its middle, so a missing part counts as a defect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgead.imaging.framing import FILL, Box, Framing
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.turned import FoundPart, Placement, Turned, find_part
from edgead.types import BoolArray, Float32Array, UInt8Array

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, eq=False)
class TurnedFraming(Framing):
    """A framing of one image, whose part is turned.

    Attributes:
        turned: Way from the source to the model's pixels.
        part: The part in the source; None if there is none on a plain ground.
    """

    turned: Turned = field(kw_only=True)
    part: FoundPart | None = field(kw_only=True)

    @property
    def is_whole(self) -> bool:
        """Whether the map covers the whole image as it is: it does not."""
        return False

    def cut(self, image: UInt8Array) -> UInt8Array:
        """Turn an image. See Framing.cut."""
        ground = FILL if self.part is None else self.part.ground
        return self.turned.turn(image[self.source.at], ground)[np.newaxis]

    def over_image(self, joined: Float32Array) -> Float32Array:
        """Turn a map back onto the image. See Framing.over_image."""
        back = self.turned.over_image(joined, (self.source.height, self.source.width))
        height, width = back.shape
        plain = Framing(self.image_px, self.size, self.source, (height, width), Box(0, 0, width, height))
        return plain.over_image(back)

    def mask(self, marked: BoolArray) -> BoolArray:
        """Turn marked pixels of an image. See Framing.mask."""
        return self.turned.mask(marked[self.source.at])


def turn_part(framing: Framing, image: UInt8Array) -> TurnedFraming:
    """Return the framing of one image whose part is turned.

    Args:
        framing: Framing of images of its size.
        image: Image, (H, W, 3) uint8 RGB.
    """
    region = image[framing.source.at]
    part = find_part(region)
    height, width = region.shape[:2]
    placement = Placement((width - 1) / 2, (height - 1) / 2, 0.0) if part is None else part.placement
    turned = Turned(placement, turned_scale(height, width, framing.size), framing.size)
    inside = turned.mask(np.ones((height, width), np.bool_))
    inside.setflags(write=False)
    return TurnedFraming(
        framing.image_px,
        framing.size,
        framing.source,
        framing.canvas_px,
        framing.target,
        inside=None if inside.all() else inside,
        turned=turned,
        part=part,
    )


def turned_scale(height_px: int, width_px: int, size: ModelSize) -> float:
    """Return the pixels of the model for each pixel of a turned image: its longer side is as wide as the model's image.

    Args:
        height_px: Height of the image.
        width_px: Width of the image.
        size: Size of the images that the model takes.
    """
    return size.width_px / max(height_px, width_px)


def images_without_part(framings: Sequence[Framing]) -> list[int]:
    """Return the numbers of the images without a part on a plain ground.

    Args:
        framings: Framings of images.
    """
    return [
        number
        for number, framing in enumerate(framings)
        if isinstance(framing, TurnedFraming) and framing.part is None
    ]


def size_needed(framings: Sequence[Framing]) -> tuple[int, int]:
    """Return the smallest height and width of the model's images that all turned parts fit into, in pixels.

    Args:
        framings: Framings of images.
    """
    parts = [
        (framing.turned.scale * framing.part.width, framing.turned.scale * framing.part.length)
        for framing in framings
        if isinstance(framing, TurnedFraming) and framing.part is not None
    ]
    height, width = np.ceil(np.max(parts, axis=0)) if parts else (0, 0)
    return int(height), int(width)
