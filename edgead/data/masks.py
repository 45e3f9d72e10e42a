"""Masks of defects: which pixels a person marked, whatever the kind of file that stores it.

In a lossless file every pixel is marked that is not black: 1 of 255, 1 of 65535, a label or a colour of a palette, as
the file shows it. Lossy compression blurs the edges of the marks, so in such a file a pixel is marked if it is brighter
than half of the brightest one. Transparent pixels are not marked. If a mask with transparent pixels shows nothing but
black, it is drawn in black on a transparent layer, and its opaque pixels are marked.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgead.data.layouts import images_in
from edgead.data.samples import Sample
from edgead.errors import DataError, ImageError
from edgead.imaging.decode import read_image, read_pixels, turned
from edgead.imaging.view import ignore_text
from edgead.types import BoolArray


def read_mask(sample: Sample, shape: tuple[int, int]) -> BoolArray:
    """Read the mask of a sample, and resize it by nearest neighbour. The masks of a folder are merged.

    Args:
        sample: Sample; without a defect if its label is 0.
        shape: Height and width of the mask, in pixels.

    Returns:
        Mask of the defect, (H, W) bool. All False for a good sample.

    Raises:
        DataError: A defective or unlabelled sample has no mask file.
        ImageError: The image or a mask file cannot be read, or they have another aspect ratio.
    """
    mask = np.zeros(shape, np.bool_)
    if sample.label == 0:
        return mask
    if sample.mask_path is None:
        raise DataError(
            f"{sample.path} has no mask of its defect", hint="add a mask, or skip the results that need masks"
        )
    size = read_image(sample.path).shape[:2]
    for file in images_in(sample.mask_path) if sample.mask_path.is_dir() else [sample.mask_path]:
        marked = marked_pixels(file)
        _check_aspect(marked.shape, file, size, sample.path)
        if marked.shape != shape:
            resized = cv2.resize(marked.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            marked = resized.astype(np.bool_)
        mask |= marked
    return mask


def marked_pixels(file: Path) -> BoolArray:
    """Read the pixels that are marked in one mask file.

    Args:
        file: Image file.

    Returns:
        Marked pixels, (H, W) bool.

    Raises:
        ImageError: The file cannot be read.
    """
    # Not `read_image`, which rounds 16 bits to 8, where 1 becomes 0, and drops the opacity.
    pixels, data = read_pixels(file)
    brightness = (pixels.peak - pixels.values if pixels.inverted else pixels.values).max(axis=2)
    limit = brightness.max() / 2 if _is_lossy(data) else 0
    marked = brightness > limit
    if pixels.alpha is not None:
        opaque = pixels.alpha[..., 0] > 0
        marked &= opaque
        if not marked.any() and not opaque.all():
            marked = opaque
    return np.asarray(turned(marked, pixels.orientation), np.bool_)


def read_ignore_mask(file: Path) -> str:
    """Read an image file whose marked pixels are ignored.

    Args:
        file: Image file of the size of the images.

    Returns:
        Text for `edgead.imaging.view.View`.

    Raises:
        ImageError: The file cannot be read, or it marks no pixel or every pixel.
    """
    marked = marked_pixels(file)
    if marked.all() or not marked.any():
        raise ImageError(
            f"the ignore mask {file} marks {'every' if marked.all() else 'no'} pixel",
            hint="draw what is ignored in white on black, in the size of the images",
        )
    return ignore_text(marked)


def _is_lossy(data: bytes) -> bool:
    """Return True for a JPEG, and for a WebP that is compressed like a video frame."""
    if data[:4] == b"RIFF":
        return data[12:16] == b"VP8 " or (data[12:16] == b"VP8X" and b"VP8L" not in data)
    return data.startswith(b"\xff\xd8")


def _check_aspect(mask: tuple[int, ...], file: Path, image: tuple[int, ...], image_file: Path) -> None:
    """Raise ImageError unless the mask is the image resized, with each side rounded to pixels."""
    if abs(mask[0] * image[1] - mask[1] * image[0]) > max(image):
        raise ImageError(
            f"the mask {file} has {mask[0]} x {mask[1]} pixels and its image {image_file} {image[0]} x {image[1]}",
            hint="draw the mask on the image as it is shown, with its height and width",
        )
