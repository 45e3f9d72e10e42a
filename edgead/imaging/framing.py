"""A view applied to images of one size: from an image to the model's pixels, and from the model's map to the image.

Ignored pixels, those outside of the region of interest and the border of a padded image get one colour before they are
resized, so that they cannot raise the score through the model's receptive fields. The map is 0 there, so they cannot
raise it themselves. The score is the largest value of the map that remains. Both happen outside of the graph, so they
are the same for every backend (`docs/decisions/0023-view-outside-the-graph.md`).

Tiles overlap, and their maps are blended: each map is weighted with a ramp (half a period of a squared sine) over the
overlap at each edge that another tile covers, and the weighted mean is the map of the image. The weight at the very
edge of a tile is almost 0, so there is no seam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from edgead.imaging.preprocess import ModelSize, resize_to_model, resized
from edgead.types import BoolArray, Float32Array, Prediction, UInt8Array

FILL = (124, 116, 104)
"""Colour of pixels that are not inspected: the mean of ImageNet, which a teacher takes as neutral."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def at(self) -> tuple[slice, slice]:
        """Rows and columns of the rectangle."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True, eq=False)
class Framing:
    """A view applied to images of one size; `edgead.imaging.frame` makes one.

    Attributes:
        image_px: Height and width of the images.
        size: Size of the images that the model takes.
        source: Rectangle of the image that the model sees.
        canvas_px: Height and width of the joined map: the model's, or the source's with tiles.
        target: Place of the source on the canvas.
        corners: Upper left corner (x, y) of each tile in the source; empty without tiles.
        overlap: Length of the ramps of the tiles, in pixels.
        uncounted: Pixels of the source that are not inspected, (height, width) bool; None for none.
        inside: Pixels of the canvas that are inspected, bool; None for all.
    """

    image_px: tuple[int, int]
    size: ModelSize
    source: Box
    canvas_px: tuple[int, int]
    target: Box
    corners: tuple[tuple[int, int], ...] = ()
    overlap: int = 0
    uncounted: BoolArray | None = None
    inside: BoolArray | None = None

    @property
    def count(self) -> int:
        """Number of tiles; 1 without tiles."""
        return max(1, len(self.corners))

    @property
    def is_whole(self) -> bool:
        """Whether the map covers the whole image as it is."""
        return self.source == (0, 0, *self.image_px[::-1]) and self.target == (0, 0, *self.canvas_px[::-1])

    @property
    def squeeze(self) -> float:
        """Factor by which the aspect ratio changes, 1 or more."""
        ratio = self.source.width * self.target.height / (self.source.height * self.target.width)
        return max(ratio, 1.0 / ratio)

    def cut(self, image: UInt8Array) -> UInt8Array:
        """Cut an image into the tiles that the model takes, or resize it.

        Args:
            image: Image, (H, W, 3) uint8 RGB, of the size `image_px`.

        Returns:
            (count, height, width, 3) uint8 RGB, contiguous; it may share the memory of the image.
        """
        region = image[self.source.at]
        if self.uncounted is not None:
            region = region.copy()
            region[self.uncounted] = FILL
        if self.corners:
            height, width = self.size.height_px, self.size.width_px
            return np.stack([region[y : y + height, x : x + width] for x, y in self.corners])
        if self.target[2:] == self.canvas_px[::-1]:
            return np.ascontiguousarray(resize_to_model(region, self.size))[np.newaxis]
        canvas = np.full((1, *self.canvas_px, 3), FILL, np.uint8)
        canvas[0][self.target.at] = resized(region, self.target.height, self.target.width)
        return canvas

    def join(self, prediction: Prediction) -> tuple[np.float32, Float32Array]:
        """Join what the model gives for the tiles of an image.

        Args:
            prediction: Maps and scores of all tiles, in the order of `cut`.

        Returns:
            Score and map of the image, (canvas_px) float32: 0 where it is not inspected. Without tiles and pixels that
            are not inspected, they are the model's own.
        """
        maps = prediction.anomaly_map[:, 0]
        joined = maps[0] if self.count == 1 else self._blended(maps)
        if self.inside is not None:
            joined = np.where(self.inside, joined, np.float32(0.0))
        elif self.count == 1:
            return prediction.anomaly_score[0], joined
        return joined.max(), joined

    def over_image(self, joined: Float32Array) -> Float32Array:
        """Return a map that covers the whole image, at about the resolution of the model.

        Args:
            joined: Map of the canvas, as `join` returns it.

        Returns:
            Map, (h, w) float32, to be stretched over the image; 0 where the image is not inspected. It has the largest
            value of `joined`.
        """
        if self.is_whole:
            return joined
        content, source = joined[self.target.at], self.source
        down, across = content.shape[0] / source.height, content.shape[1] / source.width
        if down > 1.0 or across > 1.0:
            # A small region: its map shrinks to the resolution of the image, by the largest of neighbouring values.
            kernel = np.ones((2 * math.ceil(down / 2) + 1, 2 * math.ceil(across / 2) + 1), np.uint8)
            shape = (source.width, source.height)
            content = cv2.resize(cv2.dilate(content, kernel), shape, interpolation=cv2.INTER_NEAREST)
            down = across = 1.0
        height, width = content.shape
        whole = np.zeros(
            (
                max(round(self.image_px[0] * down), height),
                max(round(self.image_px[1] * across), width),
            ),
            np.float32,
        )
        y, x = (
            min(round(source.y * down), len(whole) - height),
            min(round(source.x * across), whole.shape[1] - width),
        )
        whole[y : y + height, x : x + width] = content
        return whole

    def mask(self, marked: BoolArray) -> BoolArray:
        """Bring marked pixels of an image onto the canvas, by nearest neighbour.

        Args:
            marked: Mask of the image, (H, W) bool.

        Returns:
            Mask of the canvas, bool; not marked outside of the source.
        """
        canvas = np.zeros(self.canvas_px, np.bool_)
        region, shape = marked[self.source.at].astype(np.uint8), (self.target.width, self.target.height)
        canvas[self.target.at] = cv2.resize(region, shape, interpolation=cv2.INTER_NEAREST_EXACT).astype(
            np.bool_
        )
        return canvas

    def on_canvas(self, image: UInt8Array) -> UInt8Array:
        """Show an image as the map sees it.

        Args:
            image: Image, (H, W, 3) uint8 RGB, of the size `image_px`.

        Returns:
            Image of the size of the canvas, uint8 RGB.
        """
        return np.ascontiguousarray(image[self.source.at]) if self.corners else self.cut(image)[0]

    def _blended(self, maps: Float32Array) -> Float32Array:
        """Blend the maps of tiles, (count, height, width)."""
        (height, width), (rows, columns) = (self.size.height_px, self.size.width_px), self.canvas_px
        # Tiles are a grid, so their weights are products of weights along the two sides.
        down = _weights(rows, height, self.overlap, tuple(sorted({y for _, y in self.corners})))
        across = _weights(columns, width, self.overlap, tuple(sorted({x for x, _ in self.corners})))
        joined = np.zeros(self.canvas_px, np.float32)
        for (x, y), anomaly_map in zip(self.corners, maps, strict=True):
            joined[y : y + height, x : x + width] += down[y][:, np.newaxis] * across[x] * anomaly_map
        return joined


@lru_cache(maxsize=32)
def _weights(length: int, tile: int, overlap: int, starts: tuple[int, ...]) -> dict[int, Float32Array]:
    """Return the weights along a side of the tiles that begin at `starts`; at each pixel of the side they sum to 1."""
    ramp = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    weights, total = {}, np.zeros(length)
    for start in starts:
        weight = np.ones(tile)
        if overlap and start > 0:
            weight[:overlap] *= ramp
        if overlap and start < length - tile:
            weight[-overlap:] *= ramp[::-1]
        weights[start] = weight
        total[start : start + tile] += weight
    return {
        start: (weight / total[start : start + tile]).astype(np.float32) for start, weight in weights.items()
    }
