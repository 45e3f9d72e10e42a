"""The pixels of samples: images at the model's size.

A broken file is never skipped silently. By default it raises an error that names the file; with `skip_broken` it is
skipped and reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.data.samples import Sample
from edgead.errors import DataError, ImageError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.types import UInt8Array


@dataclass(frozen=True, slots=True)
class LoadedImages:
    """Images at the model's size.

    Attributes:
        images: Images, (N, H, W, 3) uint8 RGB.
        samples: Samples of the images, N of them in the same order.
        broken: One line for each file that was skipped.
    """

    images: UInt8Array
    samples: tuple[Sample, ...]
    broken: tuple[str, ...]


def load_images(samples: Sequence[Sample], size: ModelSize, skip_broken: bool = False) -> LoadedImages:
    """Read and resize all images of `samples`.

    Args:
        samples: Samples to read.
        size: Size of the images that the model takes.
        skip_broken: Skip files that cannot be read, and report them in `LoadedImages.broken`.

    Returns:
        The images, in the order of `samples`.

    Raises:
        ImageError: A file cannot be read, and `skip_broken` is False.
        DataError: No image is left.
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
        raise DataError(f"none of {len(samples)} images can be read{first}", hint="check the folder")
    return LoadedImages(images[: len(kept)], tuple(kept), tuple(broken))


def image_hash(image: UInt8Array) -> str:
    """Compute the ID by which a bundle knows a held-out image.

    Args:
        image: Image at the model's size, (H, W, 3) uint8 RGB.

    Returns:
        The first 128 bits of the SHA-256 of the pixels, in hex.
    """
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def read_sample(sample: Sample) -> UInt8Array:
    """Read the image of a sample.

    Args:
        sample: Sample to read.

    Returns:
        Image, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The file cannot be read.
    """
    return read_image(sample.path, sample.bit_depth)


def _read(sample: Sample, skip_broken: bool, broken: list[str]) -> UInt8Array | None:
    """Read the image of a sample; for a skipped file, return None and append a line to `broken`."""
    try:
        return read_sample(sample)
    except ImageError as error:
        if not skip_broken:
            raise ImageError(
                error.what, hint=f"{error.hint}, or skip such files with --skip-broken"
            ) from error
        broken.append(str(error))
        return None
