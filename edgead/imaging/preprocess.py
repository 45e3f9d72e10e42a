"""Preprocessing: from a decoded image or a camera frame to the uint8 RGB pixels that a model takes.

Training, verification, evaluation and the stream all use this module, so a model gets the same colour order, depth and
interpolation on the production line as in training. `edgead.imaging.view` chooses the part
of an image. No step depends on the content of an image (no scaling by its own
maximum). `preprocess_spec` records the steps of run time in the manifest of a bundle; `check_preprocess_spec` refuses a
bundle with steps that this version does not know. Casting, normalisation and transposition are inside the graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgead.errors import BundleError, InputError
from edgead.imaging.decode import BIT_DEPTHS
from edgead.types import UInt8Array

SIZE_STEP_PX = 32
SIZE_MIN_PX = 32
SIZE_MAX_PX = 2048

# Steps that the manifest records beside the size. Area averaging keeps fine defects and does not alias.
SHRINK = "area"
ENLARGE = "linear"
COLOUR = "RGB"
DTYPE = "uint8"
LAYOUT = "NHWC"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of the images that a model takes. `str(size)` returns the text that `parse` reads.

    Attributes:
        height_px: Height in pixels, a multiple of 32 from 32 to 2048.
        width_px: Width in pixels, a multiple of 32 from 32 to 2048.

    Raises:
        InputError: Another height or width was given.

    Example:
        >>> import edgead
        >>> edgead.ModelSize.parse("256x320")
        ModelSize(height_px=256, width_px=320)
    """

    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        for value in (self.height_px, self.width_px):
            if not SIZE_MIN_PX <= value <= SIZE_MAX_PX or value % SIZE_STEP_PX:
                raise InputError(
                    f"size {self.height_px}x{self.width_px}: height and width must be multiples of "
                    f"{SIZE_STEP_PX} from {SIZE_MIN_PX} to {SIZE_MAX_PX}",
                    hint="give a size such as 256",
                )

    @classmethod
    def parse(cls, text: str) -> ModelSize:
        """Read a size from text.

        Args:
            text: Size in pixels: `256` for a square, or `256x320` for height x width.

        Returns:
            The size.

        Raises:
            InputError: The text is no size, or the size is out of range.
        """
        match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text.strip())
        if match is None:
            raise InputError(
                f"size {text!r} is not a number of pixels", hint="give 256, or 256x320 for height x width"
            )
        height, width = match.groups()
        return cls(int(height), int(width or height))

    def __str__(self) -> str:
        return f"{self.height_px}x{self.width_px}"


def resize_to_model(image: UInt8Array, size: ModelSize) -> UInt8Array:
    """Resize an image to the size that the model takes.

    Axes that shrink are averaged over areas, then axes that grow are interpolated linearly. `edgead.imaging.framing`
    crops and pads.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        size: Size to resize to.

    Returns:
        Resized image, (height, width, 3) uint8 RGB; `image` itself if it already has the size.

    Raises:
        InputError: `image` has another shape or dtype.
    """
    check_image(image)
    return resized(image, size.height_px, size.width_px)


def resized(image: UInt8Array, height_px: int, width_px: int) -> UInt8Array:
    """Resize an image as `resize_to_model` does, to any size.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        height_px: Height to resize to.
        width_px: Width to resize to.

    Returns:
        Resized image, (height_px, width_px, 3) uint8 RGB; `image` itself if it already has the size.
    """
    height, width = min(image.shape[0], height_px), min(image.shape[1], width_px)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if (height, width) != (height_px, width_px):
        shape = (width_px, height_px)
        image = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image


def check_image(image: UInt8Array) -> None:
    """Check the shape and dtype of an image.

    Args:
        image: Array to check.

    Raises:
        InputError: It is not (H, W, 3) uint8, or it is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"an image of {image.shape} {image.dtype} cannot be resized", hint="give (H, W, 3) uint8 RGB"
        )


def batch_from_images(images: Sequence[UInt8Array], size: ModelSize) -> UInt8Array:
    """Resize images of any sizes into one batch.

    Args:
        images: Images, each (H, W, 3) uint8 RGB, at least one.
        size: Size to resize to.

    Returns:
        Batch, (N, height, width, 3) uint8 RGB, contiguous. It shares the memory of a single image that has the size.

    Raises:
        InputError: There is no image, or an image has another shape or dtype.
    """
    if not images:
        raise InputError("a batch of 0 images is empty", hint="give at least one image")
    if len(images) == 1:
        return np.ascontiguousarray(resize_to_model(images[0], size))[np.newaxis]
    batch = np.empty((len(images), size.height_px, size.width_px, 3), np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:] = resize_to_model(image, size)
    return batch


def preprocess_spec(size: ModelSize, bit_depth: int | None = None) -> dict[str, str | int]:
    """Describe the preprocessing for a manifest.

    Args:
        size: Size of the images that the model takes.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files, which
            is not recorded.

    Returns:
        Names and values of the steps, plain JSON values.
    """
    of_files = {} if bit_depth is None else {"bit_depth": bit_depth}
    return {
        **of_files,
        "height_px": size.height_px,
        "width_px": size.width_px,
        "shrink": SHRINK,
        "enlarge": ENLARGE,
        "colour": COLOUR,
        "dtype": DTYPE,
        "layout": LAYOUT,
    }


def check_preprocess_spec(spec: Mapping[str, object]) -> tuple[ModelSize, int | None]:
    """Check that this version does the preprocessing that a manifest records.

    Args:
        spec: Recorded spec, from `preprocess_spec`.

    Returns:
        Size of the images that the model takes, and depth of the values of image files with samples of 16 bits.

    Raises:
        BundleError: The spec has an invalid size, or a step that this version does not do.
    """
    height, width = spec.get("height_px"), spec.get("width_px")
    if type(height) is not int or type(width) is not int:
        raise BundleError(
            f"preprocess: size {height!r:.80} x {width!r:.80} in pixels", hint="rebuild with edgead build"
        )
    try:
        size = ModelSize(height, width)
    except InputError as error:
        raise BundleError(f"preprocess: {error.what}", hint="rebuild with edgead build") from error
    bit_depth = next((depth for depth in BIT_DEPTHS if spec.get("bit_depth") == depth), None)
    known = preprocess_spec(size, bit_depth)
    for key in sorted(known.keys() | spec.keys(), key=str):
        if spec.get(key) != known.get(key):
            raise BundleError(
                f"preprocess: {key!r:.80} is {spec.get(key)!r:.80}, and this edgead does {known.get(key)!r}",
                hint="rebuild with edgead build",
            )
    return size, bit_depth
