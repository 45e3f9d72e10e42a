"""Golden inputs and outputs: a few pictures and what the built model said of them, kept inside a bundle.

With them a device can check that its engine still gives the numbers that the bundle was verified with. The
file is an ``.npz`` written and read here only. It is untrusted when read: no pickle, and every array's type and
shape is checked against the bundle's picture size before any memory is set aside for it.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgead.errors import BundleError
from edgead.part import MAX_PARTS
from edgead.types import Float32Array, UInt8Array

GOLDEN_PAIRS = 4
"""Good pictures, and as many damaged twins, that a bundle carries with its own answers to them, of all parts together;
of each part one at least."""

MAX_PICTURES = 2 * MAX_PARTS


class Golden(NamedTuple):
    """N pictures and the outputs expected for them.

    images: (N, H, W, 3) uint8 RGB. anomaly_map: (N, 1, H, W) float32. anomaly_score: (N,) float32. part: (N,) uint8,
    of which part each is, as its number among the bundle's thresholds.
    """

    images: UInt8Array
    anomaly_map: Float32Array
    anomaly_score: Float32Array
    part: UInt8Array


def golden_bytes(golden: Golden) -> bytes:
    """The content of ``golden.npz``.

    golden: 1 to `MAX_PICTURES` pictures. Raises ValueError for arrays of another shape or type.
    """
    count = len(golden.images)
    if not 1 <= count <= MAX_PICTURES:
        raise ValueError(f"golden holds 1 to {MAX_PICTURES} pictures, not {count}")
    height_px, width_px = golden.images.shape[1:3]
    for name, (dtype, shape) in _layout(count, height_px, width_px).items():
        array = getattr(golden, name)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"golden {name} is {shape} {dtype}, not {array.shape} {array.dtype}")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=np.ascontiguousarray(golden.images),
        anomaly_map=np.ascontiguousarray(golden.anomaly_map),
        anomaly_score=np.ascontiguousarray(golden.anomaly_score),
        part=np.ascontiguousarray(golden.part),
    )
    return buffer.getvalue()


def read_golden(path: Path, height_px: int, width_px: int, parts: int) -> Golden:
    """Read ``golden.npz`` for pictures of this size, of so many parts; BundleError when it is anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            count = _count(archive, 2 * max(GOLDEN_PAIRS, parts))
            arrays = {
                name: _read_array(archive, name, np.dtype(dtype), shape)
                for name, (dtype, shape) in _layout(count, height_px, width_px).items()
            }
    except (
        Exception
    ) as error:  # a header made to break the reader makes zipfile and NumPy raise nearly anything
        raise BundleError(
            f"{path} does not hold golden pictures for {height_px}x{width_px} ({error}): "
            "rebuild the bundle with 'edgead build'"
        ) from error
    return Golden(**arrays)


def _layout(count: int, height_px: int, width_px: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "images": ("uint8", (count, height_px, width_px, 3)),
        "anomaly_map": ("float32", (count, 1, height_px, width_px)),
        "anomaly_score": ("float32", (count,)),
        "part": ("uint8", (count,)),
    }


def _count(archive: zipfile.ZipFile, most: int) -> int:
    """Number of pictures, from the header of the scores, bounded."""
    with archive.open("anomaly_score.npy") as stream:
        shape, _ = _read_header(stream)
    if len(shape) != 1 or not 1 <= shape[0] <= most:
        raise ValueError(f"scores of shape {shape}, where (1) to ({most}) is expected")
    return shape[0]


def _read_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        found = _read_header(stream)
        if found != (shape, dtype):
            raise ValueError(f"{name} is {found[0]} {found[1]}, where {shape} {dtype} is expected")
        wanted = int(np.prod(shape)) * dtype.itemsize
        content = stream.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(content, dtype).reshape(shape)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an ``.npy`` stream, read without touching its data."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy format {version}, where (1, 0) is expected")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order:
        raise ValueError("an array in Fortran order")
    return shape, dtype
