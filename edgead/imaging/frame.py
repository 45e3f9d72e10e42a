"""Making of framings: where on an image of a size the region of interest, the tiles and the ignored pixels lie."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from edgead.errors import ImageError
from edgead.imaging.framing import Box, Framing
from edgead.imaging.preprocess import ModelSize, check_image
from edgead.imaging.turned_framing import turn_part, turned_scale
from edgead.imaging.view import View
from edgead.types import BoolArray, UInt8Array

SQUEEZED = 1.1
"""Change of the aspect ratio above which a stretched image counts as squeezed."""


@lru_cache(maxsize=32)
def frame(view: View, height_px: int, width_px: int, size: ModelSize) -> Framing:
    """Apply a view to images of one size.

    Args:
        view: The view.
        height_px: Height of the images.
        width_px: Width of the images.
        size: Size of the images that the model takes.

    Returns:
        The framing.

    Raises:
        ImageError: The images do not hold the region of interest, have another size than the ignore mask, are smaller
            than a tile, or nothing of them is inspected.
    """
    source = _source(view, height_px, width_px)
    if view.is_tiled:
        if source.height < size.height_px or source.width < size.width_px:
            raise ImageError(
                f"a tile of {size} pixels is larger than the {source.height}x{source.width} pixels to inspect",
                hint="give a smaller --tile, or --size instead",
            )
        overlap = view.overlap or 0
        corners = tuple(
            (x, y)
            for y in _starts(source.height, size.height_px, overlap)
            for x in _starts(source.width, size.width_px, overlap)
        )
        canvas, target = (source.height, source.width), Box(0, 0, source.width, source.height)
    else:
        corners, overlap, canvas = (), 0, (size.height_px, size.width_px)
        source, target = _fitted(view, source, size)
    uncounted = _uncounted(view, height_px, width_px, source)
    inside = _inside(uncounted, canvas, target)
    if inside is not None and not inside.any():
        raise ImageError(
            "the ignore mask covers all that is to inspect", hint="give another --ignore or another --roi"
        )
    return Framing((height_px, width_px), size, source, canvas, target, corners, overlap, uncounted, inside)


def cut_image(image: UInt8Array, view: View, size: ModelSize) -> tuple[Framing, UInt8Array]:
    """Bring one image to the model's size through a view.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        view: The view.
        size: Size of the images that the model takes.

    Returns:
        The framing, and the tiles (count, height, width, 3) uint8 RGB.

    Raises:
        InputError: `image` has another shape or dtype.
        ImageError: The view does not fit the image, see `frame`.
    """
    check_image(image)
    framing = frame(view, image.shape[0], image.shape[1], size)
    if view.fit == "turn":
        framing = turn_part(framing, image)
    return framing, framing.cut(image)


def region_of(image: UInt8Array, view: View) -> UInt8Array:
    """Return the rectangle around the region of interest, for measures of the light.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        view: The view.

    Returns:
        (h, w, 3) uint8 RGB, a part of the memory of the image.

    Raises:
        ImageError: The region is outside of the image.
    """
    return image[_source(view, image.shape[0], image.shape[1]).at]


def squeeze_text(framing: Framing, name: str) -> str | None:
    """Return a warning if images are squeezed by more than a tenth.

    Args:
        framing: Framing of the images.
        name: Name of the images, for the text.
    """
    if framing.squeeze <= SQUEEZED:
        return None
    source, target = framing.source, framing.target
    return (
        f"{name}: {source.width}x{source.height} pixels are stretched to {target.width}x{target.height}, which changes "
        f"their aspect by a factor of {framing.squeeze:.2f}; train with --fit pad or --fit crop to keep it, or in tiles"
    )


def _source(view: View, height_px: int, width_px: int) -> Box:
    """Return the box around the region of interest."""
    if not view.roi:
        return Box(0, 0, width_px, height_px)
    (left, top), (right, bottom) = np.min(view.roi, axis=0).tolist(), np.max(view.roi, axis=0).tolist()
    if right > width_px or bottom > height_px:
        raise ImageError(
            f"the region of interest ends at {right},{bottom}, outside of an image of {width_px}x{height_px} pixels",
            hint="give another --roi, or images of the size that it was drawn on",
        )
    return Box(left, top, right - left, bottom - top)


def _fitted(view: View, source: Box, size: ModelSize) -> tuple[Box, Box]:
    """Return the rectangle that the model sees and its place at the model's size."""
    height, width = size.height_px, size.width_px
    if view.fit == "crop":
        scale = max(height / source.height, width / source.width)
        kept_height = min(source.height, max(1, round(height / scale)))
        kept_width = min(source.width, max(1, round(width / scale)))
        x, y = source.x + (source.width - kept_width) // 2, source.y + (source.height - kept_height) // 2
        source = Box(x, y, kept_width, kept_height)
    if view.fit == "turn":
        # Each image gets a framing of its own, with this scale.
        scale = turned_scale(source.height, source.width, size)
        target = (max(1, round(side * scale)) for side in (source.width, source.height))
        return source, Box(0, 0, *target)
    if view.fit == "pad":
        scale = min(height / source.height, width / source.width)
        fitted_height = min(height, max(1, round(source.height * scale)))
        fitted_width = min(width, max(1, round(source.width * scale)))
        at = (width - fitted_width) // 2, (height - fitted_height) // 2
        return source, Box(*at, fitted_width, fitted_height)
    return source, Box(0, 0, width, height)


def _uncounted(view: View, height_px: int, width_px: int, source: Box) -> BoolArray | None:
    """Return the pixels of the source that are not inspected; None for none."""
    outside = np.zeros((source.height, source.width), np.bool_)
    if view.roi and not view.is_rectangle:
        # Corners are corners of pixels, and OpenCV counts from the centres of pixels, here in halves of a pixel.
        points = 2 * (np.array(view.roi, np.int32) - (source.x, source.y)) - 1
        inside = cv2.fillPoly(np.zeros(outside.shape, np.uint8), [points.astype(np.int32)], 1, shift=1)
        outside = inside == 0
    ignored = view.ignored()
    if ignored is not None:
        if ignored.shape != (height_px, width_px):
            raise ImageError(
                f"the ignore mask has {ignored.shape[1]}x{ignored.shape[0]} pixels and the image "
                f"{width_px}x{height_px}",
                hint="give images of the size of the mask, or draw the mask on an image of the camera",
            )
        outside |= ignored[source.at]
    return outside if outside.any() else None


def _inside(uncounted: BoolArray | None, canvas_px: tuple[int, int], target: Box) -> BoolArray | None:
    """Return the pixels of the canvas that are inspected: those of which more than half is counted; None for all."""
    if uncounted is None and target[2:] == canvas_px[::-1]:
        return None
    inside = np.zeros(canvas_px, np.bool_)
    inside[target.at] = True
    if uncounted is not None:
        share, shape = (~uncounted).astype(np.float32), (target.width, target.height)
        if uncounted.shape != shape[::-1]:
            smaller = min(uncounted.shape[1], shape[0]), min(uncounted.shape[0], shape[1])
            share = cv2.resize(share, smaller, interpolation=cv2.INTER_AREA)
            share = cv2.resize(share, shape, interpolation=cv2.INTER_LINEAR)
        inside[target.at] = share > 0.5
    inside.setflags(write=False)
    return inside


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along a side: as few as overlap enough, evenly spread."""
    count = 1 if length == tile else math.ceil((length - overlap) / (tile - overlap))
    return [int(start) for start in np.linspace(0, length - tile, max(count, 1)).round()]
