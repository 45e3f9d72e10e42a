"""The pixels of samples: images at the model's size, and masks of defects.

A broken file is never skipped in silence: without leave to skip it ends the job by its name, with leave
it is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgead.data.samples import Sample
from edgead.errors import DataError, ImageError
from edgead.imaging.preprocess import ModelSize, read_image, resize_to_model
from edgead.types import BoolArray, UInt8Array


@dataclass(frozen=True, slots=True)
class LoadedImages:
    """Images at the model's size.

    images: (N, H, W, 3) uint8 RGB. samples: the N samples they belong to. broken: one line for each that was
    skipped.
    """

    images: UInt8Array
    samples: tuple[Sample, ...]
    broken: tuple[str, ...]


def load_images(samples: Sequence[Sample], size: ModelSize, skip_broken: bool = False) -> LoadedImages:
    """Read and resize all images of `samples`.

    Raises ImageError for a broken file unless `skip_broken`, DataError when there is not one image to
    give.
    """
    images = np.empty((len(samples), size.height_px, size.width_px, 3), np.uint8)
    kept: list[Sample] = []
    broken: list[str] = []
    for sample in samples:
        image = _read(sample, skip_broken, broken)
        if image is not None:
            images[len(kept)] = resize_to_model(image, size)
            kept.append(sample)
    if not kept:
        first = f", the first: {broken[0]}" if broken else ""
        raise DataError(f"none of {len(samples)} images can be read{first}; check the folder")
    return LoadedImages(images[: len(kept)], tuple(kept), tuple(broken))


def read_mask(sample: Sample, shape: tuple[int, int]) -> BoolArray:
    """The defect of `sample` as (H, W) bool, resized to `shape` by nearest pixel; all False for a good one.

    Raises DataError for a defect without a mask, ImageError for a mask that cannot be read.
    """
    if sample.label == 0:
        return np.zeros(shape, np.bool_)
    if sample.mask_path is None:
        raise DataError(f"{sample.path} has no mask of its defect: add one, or leave out what needs masks")
    mask = read_image(sample.mask_path).any(axis=2)
    if mask.shape != shape:
        resized = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        mask = resized.astype(np.bool_)
    return mask


def _read(sample: Sample, skip_broken: bool, broken: list[str]) -> UInt8Array | None:
    """The image of a sample; None, and a line more in `broken`, for one that is skipped."""
    try:
        return read_image(sample.path)
    except ImageError as error:
        if not skip_broken:
            raise ImageError(f"{error} (--skip-broken leaves such files out)") from error
        broken.append(str(error))
        return None
