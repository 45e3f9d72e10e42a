"""Golden inputs and outputs: a few images and the built model's outputs for them, kept inside a bundle.

A device uses them to check that its session still gives the numbers that the bundle was verified with. The bundle also
keeps one of the images, the chart, as a JPEG file. A device uses it to check that it decodes and resizes images as the
builder did.

Only this module writes and reads the file, an ``.npz``. The file is untrusted: the reader accepts no pickle, and checks
the type and shape of every array against the bundle's image size before it allocates memory for the array.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edgead.bundle.part_names import MAX_PARTS
from edgead.errors import BundleError
from edgead.imaging.decode import image_from_bytes
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.types import Float32Array, UInt8Array

GOLDEN_PAIRS = 4
"""Number of good images in a bundle, over all parts; it has as many synthetic defects. Each part has at least one of
each."""

MAX_IMAGES = 2 * MAX_PARTS + 1
"""Largest number of golden images: a good image and a synthetic defect of each part, and the chart."""

_MAX_CHART_BYTES_A_PIXEL = 8
_MAX_LIST_BYTES = 4096


class Golden(NamedTuple):
    """N images and the outputs expected for them. The last image is the chart.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        anomaly_map: (N, 1, H, W) float32.
        anomaly_score: (N,) float32.
        part: (N,) uint8, index of each image's part among the bundle's thresholds.
        chart: (B,) uint8, content of a JPEG file. Decoded and resized, it is the last image.
    """

    images: UInt8Array
    anomaly_map: Float32Array
    anomaly_score: Float32Array
    part: UInt8Array
    chart: UInt8Array


def chart_from_image(image: UInt8Array) -> UInt8Array:
    """Make the chart of an image: the image enlarged by half, with colours and lines that a wrong decoding changes.

    Squares of red, green and blue reveal a wrong colour order, even if the parts are grey. Lines of one pixel reveal an
    interpolation other than area averaging.

    Args:
        image: (H, W, 3) uint8 RGB at the model's size.

    Returns:
        (B,) uint8, content of a JPEG file of 1.5 H x 1.5 W pixels.
    """
    height, width = (side * 3 // 2 for side in image.shape[:2])
    chart = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    side = min(height, width) // 8
    for place, colour in enumerate([(224, 32, 32), (32, 224, 32), (32, 32, 224)]):
        chart[:side, place * side : (place + 1) * side] = colour
    lines = np.where(np.arange(side) % 2, 224, 32).astype(np.uint8)
    chart[:side, 3 * side : 4 * side] = lines[None, :, None]
    chart[:side, 4 * side : 5 * side] = lines[:, None, None]
    _, encoded = cv2.imencode(".jpg", chart[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return np.asarray(encoded, np.uint8).ravel()


def pixels_from_chart(chart: UInt8Array, size: ModelSize) -> UInt8Array:
    """Decode and resize a chart on this machine, in the same way as every image file.

    Args:
        chart: (B,) uint8, content of a JPEG file.
        size: Size of the model's images.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The chart is no image file, or is damaged.
    """
    return resize_to_model(image_from_bytes(chart.tobytes(), "the chart of the golden images"), size)


def golden_bytes(golden: Golden) -> bytes:
    """Return the content of ``golden.npz``.

    Args:
        golden: 1 to `MAX_IMAGES` images with their outputs.

    Raises:
        ValueError: An array has another shape or type than `Golden` describes, or the chart is too large.
    """
    count = len(golden.images)
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"golden holds 1 to {MAX_IMAGES} images, not {count}")
    height_px, width_px = golden.images.shape[1:3]
    for name, (dtype, shape) in _layout(count, height_px, width_px).items():
        array = getattr(golden, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"golden {name} is {shape} {dtype}, not {array.shape} {array.dtype}")
    if golden.chart.dtype != np.uint8 or not 1 <= golden.chart.size <= _longest_chart(height_px, width_px):
        raise ValueError(f"golden chart is the content of a JPEG file, not {golden.chart.shape}")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=np.ascontiguousarray(golden.images),
        anomaly_map=np.ascontiguousarray(golden.anomaly_map),
        anomaly_score=np.ascontiguousarray(golden.anomaly_score),
        part=np.ascontiguousarray(golden.part),
        chart=np.ascontiguousarray(golden.chart),
    )
    return buffer.getvalue()


def max_golden_bytes(size: ModelSize) -> int:
    """Return the largest size of ``golden.npz``, in bytes.

    Args:
        size: Size of the model's images.
    """
    a_pixel = MAX_IMAGES * (3 + 4) + _MAX_CHART_BYTES_A_PIXEL
    return a_pixel * size.height_px * size.width_px + 2**20


def read_golden(content: bytes, name: str, size: ModelSize, parts: int) -> Golden:
    """Read ``golden.npz``.

    Args:
        content: Content of the file.
        name: Path of the file, for messages.
        size: Size of the model's images.
        parts: Number of parts of the model. It limits the number of images.

    Returns:
        The images and the outputs expected for them.

    Raises:
        BundleError: The file is no such archive, or an array is missing or has another shape or type.
    """
    height_px, width_px = size.height_px, size.width_px
    try:
        _check_archive(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            count = _length(archive, "anomaly_score", 2 * max(GOLDEN_PAIRS, parts) + 1)
            length = _length(archive, "chart", _longest_chart(height_px, width_px))
            arrays = {
                name: _read_array(archive, name, np.dtype(dtype), shape)
                for name, (dtype, shape) in {
                    **_layout(count, height_px, width_px),
                    "chart": ("uint8", (length,)),
                }.items()
            }
    # A malicious header makes zipfile and NumPy raise nearly any exception.
    except Exception as error:
        raise BundleError(
            f"{name} does not hold golden images for {size} ({error})",
            hint="rebuild the bundle with 'edgead build'",
        ) from error
    return Golden(**arrays)


def _check_archive(content: bytes) -> None:
    """Raise ValueError unless the archive ends with a list of no more arrays than `Golden` has, as NumPy writes it.

    `zipfile` makes an object of each entry of this list before it looks at any.
    """
    end = content[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or content[-42:-38] == b"PK\6\7":
        raise ValueError("it is no archive of arrays")
    _, _, _, count, list_bytes, _, _ = struct.unpack("<4H2LH", end[4:])
    if count > len(Golden._fields) or list_bytes > _MAX_LIST_BYTES:
        raise ValueError(f"it lists {count} arrays in {list_bytes} bytes")


def _opened(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open an array of the archive; ValueError if its compression may need much memory, as LZMA does."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has the compression {entry.compress_type}")
    return archive.open(entry)


def _layout(count: int, height_px: int, width_px: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every array except the chart."""
    return {
        "images": ("uint8", (count, height_px, width_px, 3)),
        "anomaly_map": ("float32", (count, 1, height_px, width_px)),
        "anomaly_score": ("float32", (count,)),
        "part": ("uint8", (count,)),
    }


def _longest_chart(height_px: int, width_px: int) -> int:
    """Largest size of the chart's JPEG file, in bytes."""
    return _MAX_CHART_BYTES_A_PIXEL * height_px * width_px


def _length(archive: zipfile.ZipFile, name: str, most: int) -> int:
    """Length of an array of one dimension, from its header; ValueError if it is not 1 to `most`."""
    with _opened(archive, name) as stream:
        shape, _ = _read_header(stream)
    if len(shape) != 1 or not 1 <= shape[0] <= most:
        raise ValueError(f"{name} has shape {shape}, not (1,) to ({most},)")
    return shape[0]


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read an array that must have this type and shape."""
    with _opened(archive, name) as stream:
        found = _read_header(stream)
        if found != (shape, dtype):
            raise ValueError(f"{name} is {found[0]} {found[1]}, not {shape} {dtype}")
        wanted = int(np.prod(shape)) * dtype.itemsize
        content = stream.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{name} has {len(content)} bytes, not {wanted}")
    return np.frombuffer(content, dtype).reshape(shape)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and type of an ``.npy`` stream, without its data."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy format is {version}, not (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order:
        raise ValueError("an array is in Fortran order")
    return shape, dtype
