"""Preprocessing: from an image file or a camera frame to the uint8 RGB pixels that a model takes.

Training, verification, evaluation and the stream all use this module, so a model gets the same colour order, depth and
interpolation on the production line as in training. No step depends on the content of an image (no scaling by its own
maximum). `preprocess_spec` records the steps of run time in the manifest of a bundle; `check_preprocess_spec` refuses a
bundle with steps that this version does not know. Casting, normalisation and transposition are inside the graph.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgead.errors import BundleError, ImageError, InputError
from edgead.imaging.header import read_header
from edgead.types import UInt8Array

# An image is untrusted input, so both limits are checked before it is decoded. 2**26 pixels are 8192 x 8192.
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 2**26

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

SIZE_STEP_PX = 32
SIZE_MIN_PX = 32
SIZE_MAX_PX = 2048

# Steps that the manifest records beside the size. Area averaging keeps fine defects and does not alias.
SHRINK = "area"
ENLARGE = "linear"
ASPECT = "stretch"
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


def read_image(path: Path) -> UInt8Array:
    """Read a PNG, JPEG, BMP or TIFF file.

    Grey becomes three equal channels, and transparency is composited on black. 16-bit values are divided by 257 and
    rounded (65535 becomes 255), whatever the maximum of the image. The EXIF orientation of a JPEG is applied. The
    format follows from the content, not from the name.

    Args:
        path: Image file.

    Returns:
        Image, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The file is missing, not an image, cut short or damaged, of another depth than 8 or 16 bits, longer
            than `MAX_FILE_BYTES`, or has more than `MAX_PIXELS` pixels.
    """
    return image_from_bytes(_read_bounded(path), str(path))


def image_from_bytes(data: bytes, name: str) -> UInt8Array:
    """Decode the content of an image file as `read_image` does.

    Args:
        data: Content of a PNG, JPEG, BMP or TIFF file.
        name: Name of the image, for messages.

    Returns:
        Image, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The image cannot be used; see `read_image`.
    """
    header = read_header(data)
    if header is None:
        raise ImageError(f"{name} is not a PNG, JPEG, BMP or TIFF image", hint="remove it or save it as PNG")
    if header.height_px * header.width_px > MAX_PIXELS:
        raise ImageError(
            f"{name} has {header.height_px} x {header.width_px} pixels, more than the {MAX_PIXELS} allowed",
            hint="crop or shrink it",
        )
    if not header.whole:
        raise ImageError(
            f"{name} is cut short or damaged", hint="copy it again from its source, or remove it"
        )
    # IMREAD_UNCHANGED keeps alpha but ignores the EXIF orientation. A JPEG has no alpha and needs its orientation.
    flags = cv2.IMREAD_COLOR if header.format == "jpeg" else cv2.IMREAD_UNCHANGED
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise ImageError(
            f"{name} is broken and cannot be decoded", hint="copy it again from its source, or remove it"
        )
    if decoded.dtype not in (np.uint8, np.uint16) or decoded.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ImageError(
            f"{name} has {decoded[0, 0].size} channels of {decoded.dtype}",
            hint="save it as grey, RGB or RGBA with 8 or 16 bits per channel",
        )
    # libtiff returns 8-bit colour that is already multiplied by its alpha, which is the composite on black.
    premultiplied = header.format == "tiff" and decoded.dtype == np.uint8
    return _rgb8_from_decoded(decoded, premultiplied)


def resize_to_model(image: UInt8Array, size: ModelSize) -> UInt8Array:
    """Resize an image to the size that the model takes.

    Axes that shrink are averaged over areas, then axes that grow are interpolated linearly. There is no crop or pad.

    Args:
        image: Image, (H, W, 3) uint8 RGB.
        size: Size to resize to.

    Returns:
        Resized image, (height, width, 3) uint8 RGB; `image` itself if it already has the size.

    Raises:
        InputError: `image` has another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"an image of {image.shape} {image.dtype} cannot be resized", hint="give (H, W, 3) uint8 RGB"
        )
    height, width = min(image.shape[0], size.height_px), min(image.shape[1], size.width_px)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if (height, width) != (size.height_px, size.width_px):
        shape = (size.width_px, size.height_px)
        image = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image


def batch_from_images(images: Sequence[UInt8Array], size: ModelSize) -> UInt8Array:
    """Resize images of any sizes into one batch.

    Args:
        images: Images, each (H, W, 3) uint8 RGB, at least one.
        size: Size to resize to.

    Returns:
        Batch, (N, height, width, 3) uint8 RGB, contiguous.

    Raises:
        InputError: There is no image, or an image has another shape or dtype.
    """
    if not images:
        raise InputError("a batch of 0 images is empty", hint="give at least one image")
    batch = np.empty((len(images), size.height_px, size.width_px, 3), np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:] = resize_to_model(image, size)
    return batch


def preprocess_spec(size: ModelSize) -> dict[str, str | int]:
    """Describe the preprocessing for a manifest.

    Args:
        size: Size of the images that the model takes.

    Returns:
        Names and values of the steps, plain JSON values.
    """
    return {
        "height_px": size.height_px,
        "width_px": size.width_px,
        "shrink": SHRINK,
        "enlarge": ENLARGE,
        "aspect": ASPECT,
        "colour": COLOUR,
        "dtype": DTYPE,
        "layout": LAYOUT,
    }


def check_preprocess_spec(spec: Mapping[str, object]) -> ModelSize:
    """Check that this version does the preprocessing that a manifest records.

    Args:
        spec: Recorded spec, from `preprocess_spec`.

    Returns:
        Size of the images that the model takes.

    Raises:
        BundleError: The spec has an invalid size, or a step that this version does not do.
    """
    height, width = spec.get("height_px"), spec.get("width_px")
    if type(height) is not int or type(width) is not int:
        raise BundleError(
            f"preprocess: size {height!r} x {width!r} is not in pixels", hint="rebuild with edgead build"
        )
    try:
        size = ModelSize(height, width)
    except InputError as error:
        raise BundleError(f"preprocess: {error.what}", hint="rebuild with edgead build") from error
    known = preprocess_spec(size)
    for key in sorted(known.keys() | spec.keys(), key=str):
        if spec.get(key) != known.get(key):
            raise BundleError(
                f"preprocess: {key} is {spec.get(key)!r}, and this edgead does {known.get(key)!r}",
                hint="rebuild with edgead build",
            )
    return size


def _read_bounded(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path} is not a file", hint="give the path of an image")
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError(
                    f"{path} has {status.st_size} bytes, more than the {MAX_FILE_BYTES} allowed",
                    hint="crop or shrink it",
                )
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ImageError(
            f"cannot read {path} ({error.strerror or error})", hint="check the path and its permissions"
        ) from error


def _open_without_waiting(name: str, flags: int) -> int:
    # To open a named pipe would block until it has a writer.
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _rgb8_from_decoded(decoded: npt.NDArray[np.uint8 | np.uint16], premultiplied: bool) -> UInt8Array:
    """Convert grey, BGR or BGRA of 8 or 16 bits, as OpenCV decodes it, to (H, W, 3) uint8 RGB, contiguous."""
    planes = decoded[..., np.newaxis] if decoded.ndim == 2 else decoded
    if planes.shape[2] == 4 and not premultiplied:
        peak = np.uint32(np.iinfo(planes.dtype).max)
        colour, alpha = planes[..., :3].astype(np.uint32), planes[..., 3:].astype(np.uint32)
        planes = ((colour * alpha + peak // 2) // peak).astype(planes.dtype)
    if planes.dtype == np.uint16:
        planes = ((planes.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if planes.shape[2] == 1:
        return np.repeat(planes, 3, axis=2).astype(np.uint8, copy=False)
    return np.ascontiguousarray(planes[..., 2::-1], np.uint8)
