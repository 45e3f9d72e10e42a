"""The layers of the images of a report: image, heat map and mask of each one, small enough for a page in one file.

A page must open in a browser and go by mail also with thousands of images. So all images of a page together have at
most `PIXELS` pixels: the more images, the smaller each one is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from edgead.data import Sample
from edgead.evaluation.dataset_scores import Scores, finite_scores
from edgead.evaluation.gallery import colour_scale
from edgead.evaluation.html import data_uri, image_uri
from edgead.evaluation.pixels import image_on_map, mask_on_map
from edgead.imaging.framing import Framing
from edgead.imaging.heatmap import overlay
from edgead.scoring.threshold import Threshold
from edgead.types import Float32Array, UInt8Array

PIXELS = 2000 * 128**2
"""Pixels of all images of a page: 500 images of 256 x 256, or 2000 of 128 x 128."""

SMALLEST_SIDE_PX = 64
"""No image is made smaller; with more images than fit, only those with scores near the threshold have layers."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of the images of a page.

    Attributes:
        shape: Height and width of the layers in pixels.
        of_image: Data URIs of image, heat map and mask, by the index of the image. The mask is None if there is none.
    """

    shape: tuple[int, int]
    of_image: Mapping[int, tuple[str, str, str | None]]

    @property
    def size_mb(self) -> float:
        """Characters of all data URIs, in millions."""
        return sum(len(uri) for uris in self.of_image.values() for uri in uris if uri is not None) / 1e6


def image_layers(scores: Scores, threshold: Threshold | None) -> Layers | None:
    """Read the images again and encode their layers.

    Args:
        scores: Scores and maps of a dataset.
        threshold: Threshold of the decisions and of the colour scale; None for no decisions.

    Returns:
        The layers; None if a map or a score is not finite.

    Raises:
        ImageError: If an image file can no longer be read.
    """
    if not finite_scores(scores).all():
        return None
    scale = colour_scale(scores, threshold)
    shape, most = layer_shape(len(scores.samples), scores.maps[0].shape)
    nearest = np.argsort(np.abs(scores.scores.astype(np.float64) - scale), kind="stable")[:most]
    return Layers(
        shape,
        {
            index: _layers(scores.samples[index], scores.framing(index), scores.maps[index], scale, shape)
            for index in sorted(nearest.tolist())
        },
    )


def layer_shape(n: int, map_shape: tuple[int, ...]) -> tuple[tuple[int, int], int]:
    """Compute the shape of the layers of a page.

    Args:
        n: Number of images.
        map_shape: Height and width of a map.

    Returns:
        Height and width of each layer in pixels, at most the map's, and the largest number of images with layers.
    """
    fitting = math.sqrt(PIXELS / (n * map_shape[0] * map_shape[1]))
    smallest = SMALLEST_SIDE_PX / max(map_shape)
    factor = min(1.0, max(fitting, smallest))
    height, width = (max(1, int(side * factor)) for side in map_shape)
    return (height, width), PIXELS // (height * width)


def _layers(
    sample: Sample, framing: Framing | None, anomaly_map: Float32Array, scale: float, shape: tuple[int, int]
) -> tuple[str, str, str | None]:
    """Data URIs of image, heat map and mask of one image."""
    image = image_on_map(sample, anomaly_map.shape, framing)
    # The heat map is drawn at the size of the map, so that a small region above the threshold stays visible.
    lit = overlay(image, anomaly_map, scale)
    mask = None
    if sample.label == 1 and sample.mask_path is not None:
        marked = _resized(mask_on_map(sample, image.shape[:2], framing).astype(np.uint8) * 255, shape)
        _, data = cv2.imencode(
            ".png", np.where(marked > 0, 255, 0).astype(np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1]
        )
        mask = data_uri("image/png", data.tobytes())
    return image_uri(_resized(image, shape)), image_uri(_resized(lit, shape)), mask


def _resized(image: UInt8Array, shape: tuple[int, int]) -> UInt8Array:
    """Shrink an image (H, W) or (H, W, 3) to the shape of a layer."""
    if image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
