"""Maps, masks and images of an evaluation on one canvas: the one of the map."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import cv2
import numpy as np

from edgead.data import Sample, read_mask, read_sample
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import resized
from edgead.scoring.pixel_histogram import PixelHistogram
from edgead.types import BoolArray, Float32Array, UInt8Array

MAPS_BYTES = 2**29
"""Largest size of the maps that an evaluation keeps for its report; larger ones are reduced."""


def missing_masks(samples: Sequence[Sample]) -> str | None:
    """Return the reason why there are no pixel metrics before any mask is read; None if all defects have masks.

    Args:
        samples: Samples of the evaluation.
    """
    defects = [sample for sample in samples if sample.label == 1]
    missing = sum(sample.mask_path is None for sample in defects)
    return f"{missing} of {len(defects)} defect images have no mask" if missing else None


def count_pixels(
    histogram: PixelHistogram, sample: Sample, anomaly_map: Float32Array, framing: Framing | None
) -> None:
    """Count the pixels of a labelled image. A map that is not finite is left out.

    Args:
        histogram: Counts of all images.
        sample: The image.
        anomaly_map: Its map, (h, w) float32.
        framing: Its framing; None for a map that is stretched over the image.

    Raises:
        ImageError: The mask cannot be read.
    """
    if sample.label is None or not np.isfinite(anomaly_map).all():
        return
    inside = None if framing is None else framing.inside
    histogram.add(anomaly_map, mask_on_map(sample, anomaly_map.shape, framing), inside)


def mask_on_map(sample: Sample, shape: tuple[int, ...], framing: Framing | None) -> BoolArray:
    """Read the mask of an image onto the canvas of its map.

    Args:
        sample: Sample with a label.
        shape: Height and width of the map.
        framing: Framing of the image; None for a map that is stretched over the image.

    Returns:
        Mask, (h, w) bool.

    Raises:
        ImageError: The mask cannot be read.
    """
    height, width = shape
    if framing is None or framing.is_whole:
        return read_mask(sample, (height, width))
    mask = framing.mask(read_mask(sample, framing.image_px))
    if mask.shape == (height, width):
        return mask
    smaller = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(smaller, np.bool_)


def image_on_map(sample: Sample, shape: tuple[int, ...], framing: Framing | None) -> UInt8Array:
    """Read an image onto the canvas of its map.

    Args:
        sample: The image.
        shape: Height and width of the map.
        framing: Framing of the image; None for a map that is stretched over the image.

    Returns:
        Image, (h, w, 3) uint8 RGB.

    Raises:
        ImageError: The image cannot be read.
    """
    image = read_sample(sample)
    return resized(image if framing is None else framing.on_canvas(image), *shape)


def reduction(count: int, shape: tuple[int, ...]) -> int:
    """Return the factor by which maps are reduced, so that all of them have at most `MAPS_BYTES`.

    Args:
        count: Number of maps.
        shape: Height and width of a map.
    """
    return max(1, ceil(sqrt(4 * count * shape[0] * shape[1] / MAPS_BYTES)))


def reduced(anomaly_map: Float32Array, factor: int) -> Float32Array:
    """Reduce a map by the largest value of each square of pixels; NaN if a value is not finite.

    Args:
        anomaly_map: Map, (h, w) float32.
        factor: Side of the squares, in pixels.
    """
    if factor == 1:
        return anomaly_map
    height, width = (ceil(side / factor) for side in anomaly_map.shape)
    if not np.isfinite(anomaly_map).all():
        return np.full((height, width), np.nan, np.float32)
    padding = [(0, height * factor - anomaly_map.shape[0]), (0, width * factor - anomaly_map.shape[1])]
    padded = np.pad(anomaly_map, padding, mode="edge")
    smaller: Float32Array = padded.reshape(height, factor, width, factor).max(axis=(1, 3))
    return smaller
