"""Arguments and sizes of the kernel launches, for launches from Python; anomaly_map.cu computes the same in C++.

The structures equal those of arguments.cuh byte for byte. A test compares every number with the compiled launcher.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgead.errors import BackendError
from edgead.types import HeadSpec

Format: TypeAlias = Literal["float", "half", "half8"]
FeatureShape: TypeAlias = tuple[int, int, int, int]

THREADS = 256
MAX_SCALES = 4
MAX_SIZE, MAX_SIGMA = 16384, 32.0
_WARPS, _TILE, _UNROLL = THREADS // 32, 32, 4
_INT32_MAX = 2**31 - 1


class Scale(ctypes.Structure):
    """Structure `edgead::Scale`."""

    _fields_ = [
        ("teacher", ctypes.c_void_p),
        ("student", ctypes.c_void_p),
        ("map_offset", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in ("channels", "height", "width", "pixels", "lanes", "first_block")
        ),
        ("weight", ctypes.c_float),
    ]


class Arguments(ctypes.Structure):
    """Structure `edgead::Arguments`, the only argument of every kernel."""

    _fields_ = [
        ("scale", Scale * MAX_SCALES),
        *((name, ctypes.c_void_p) for name in ("maps", "anomaly_map", "anomaly_score")),
        *(
            (name, ctypes.c_int32)
            for name in ("batch", "height", "width", "scales", "multiply", "align_corners")
        ),
        ("radius", ctypes.c_int32),
        ("exponent", ctypes.c_float),
        ("normaliser", ctypes.c_float),
    ]


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch with THREADS threads in each block.

    Attributes:
        kernel: Name of the kernel.
        blocks: Number of blocks.
        shared_bytes: Dynamic shared memory of each block, in bytes.
        arguments: Argument of the kernel.
    """

    kernel: str
    blocks: int
    shared_bytes: int
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Buffers:
    """Device addresses of the tensors of the operator, for K scales.

    Attributes:
        teacher: K features (N, C_k, H_k, W_k) of the teacher.
        student: K features (N, C_k, H_k, W_k) of the student.
        workspace: Workspace of `workspace_bytes` bytes.
        anomaly_map: Anomaly map (N, 1, H, W) float32.
        anomaly_score: Anomaly score (N,) float32.
    """

    teacher: Sequence[int]
    student: Sequence[int]
    workspace: int
    anomaly_map: int
    anomaly_score: int


def workspace_bytes(shapes: Sequence[FeatureShape]) -> int:
    """Compute the size of the workspace.

    Args:
        shapes: (N, C_k, H_k, W_k) of each scale k.

    Returns:
        Size in bytes.
    """
    return 4 * sum(n * height * width for n, _, height, width in shapes)


def launches(
    layout: Format, shapes: Sequence[FeatureShape], spec: HeadSpec, buffers: Buffers, multiprocessors: int
) -> tuple[Launch, Launch]:
    """Plan the two launches of the operator: first the cosine maps, then the anomaly map.

    Args:
        layout: Type and memory layout of the features; see `edgead::Format` in anomaly_map.h.
        shapes: (N, C_k, H_k, W_k) of each scale k, equal for teacher and student.
        spec: Parameters of the operator.
        buffers: Device addresses of the tensors.
        multiprocessors: Number of multiprocessors of the device, which determines the number of blocks.

    Raises:
        BackendError: The kernels do not support the shapes, the parameters or the buffers.
    """
    _check(layout, shapes, spec, buffers)
    batch = shapes[0][0]
    element = 4 if layout == "float" else 2
    total_bytes = 0
    for n, channels, height, width in shapes:
        stored = -(-channels // 8) * 8 if layout == "half8" else channels
        total_bytes += 2 * element * n * stored * height * width
    sigma: float = ctypes.c_float(spec.sigma).value
    radius = int(4.0 * sigma + 0.5)
    variance = sigma**2
    total = 1.0 + sum(2.0 * math.exp(-0.5 * distance**2 / variance) for distance in range(1, radius + 1))
    arguments = Arguments(
        maps=buffers.workspace,
        anomaly_map=buffers.anomaly_map,
        anomaly_score=buffers.anomaly_score,
        batch=batch,
        height=spec.height,
        width=spec.width,
        scales=len(shapes),
        multiply=spec.fusion == "multiply",
        align_corners=spec.align_corners,
        radius=radius,
        exponent=-0.5 / variance if radius else 0.0,
        normaliser=1.0 / total,
    )
    blocks = floats = widest = 0
    sides = zip(spec.weights_of(len(shapes)), buffers.teacher, buffers.student, strict=False)
    for scale, (_, channels, height, width), side in zip(arguments.scale, shapes, sides, strict=False):
        scale.weight, scale.teacher, scale.student = side
        scale.channels, scale.height, scale.width = channels, height, width
        scale.map_offset, scale.first_block = floats, blocks
        floats += batch * height * width
        blocks += _cut(layout, batch, total_bytes // (2 * multiprocessors), scale)
        widest = max(widest, scale.lanes * scale.pixels)
    partial_sums = 0 if layout == "half8" else 3 * _WARPS * widest
    tiles = -(-spec.width // _TILE) * -(-spec.height // _TILE)
    if max(blocks, batch * tiles) > _INT32_MAX:
        raise BackendError(
            f"a batch of {batch} is too large for one launch", hint="give fewer images at a time"
        )
    return (
        Launch(f"edgead_cosine_{layout}", blocks, 4 * partial_sums, arguments),
        Launch("edgead_fuse_and_smooth", batch * tiles, 4 * _shared_words(radius), arguments),
    )


def _check(layout: Format, shapes: Sequence[FeatureShape], spec: HeadSpec, buffers: Buffers) -> None:
    """Raise BackendError if the kernels do not support the arguments of `launches`."""
    if not 1 <= len(shapes) <= MAX_SCALES:
        raise BackendError(
            f"the CUDA kernels take 1 to {MAX_SCALES} scales, not {len(shapes)}",
            hint="build with --head standard",
        )
    if spec.sigma > MAX_SIGMA:
        raise BackendError(f"the CUDA kernels smooth with a sigma up to {MAX_SIGMA:g}, not {spec.sigma:g}")
    sizes = [spec.height, spec.width, *(size for shape in shapes for size in shape[2:])]
    if min(sizes) < 1 or max(sizes) > MAX_SIZE:
        raise BackendError(f"the CUDA kernels take heights and widths from 1 to {MAX_SIZE}, not {sizes}")
    if len({shape[0] for shape in shapes}) != 1 or min(min(shape) for shape in shapes) < 1:
        raise BackendError(f"features must share one batch size and must not be empty, unlike {list(shapes)}")
    if max(n * height * width for n, _, height, width in shapes) > _INT32_MAX:
        raise BackendError(
            f"features {list(shapes)} have too many positions", hint="give fewer images at a time"
        )
    if len(buffers.teacher) != len(shapes) or len(buffers.student) != len(shapes):
        raise BackendError(
            f"one buffer per feature and side, not {len(buffers.teacher)} and {len(buffers.student)} for {len(shapes)}"
        )
    features = [*buffers.teacher, *buffers.student]
    if not all([*features, buffers.workspace, buffers.anomaly_map, buffers.anomaly_score]):
        raise BackendError("a buffer of the anomaly map is a null pointer", hint="allocate it first")
    if layout == "half8" and any(address % 16 for address in features):
        raise BackendError(
            "features in groups of 8 channels are not aligned to 16 bytes",
            hint="allocate them with that alignment",
        )


def _cut(layout: Format, batch: int, wanted: int, scale: Scale) -> int:
    """Set pixels and lanes of a scale, and return its number of blocks; see anomaly_map.cu for the reasons."""
    channels: int = scale.channels
    count: int = scale.height * scale.width
    lanes = 32
    if layout == "half8":
        groups = -(-channels // 8)
        while lanes > 1 and lanes // 2 >= min(groups, max(groups // _UNROLL, 8)):
            lanes //= 2
        scale.pixels, scale.lanes = 1, lanes
        return -(-batch * count * lanes // THREADS)
    element = 4 if layout == "float" else 2
    aligned = scale.teacher % 16 == 0 and scale.student % 16 == 0
    pixels = 16 // element if aligned and count % (16 // element) == 0 else 1
    bytes_a_load = pixels * element
    while (
        lanes * bytes_a_load > 32
        and 2 * lanes * bytes_a_load * channels > wanted
        and THREADS // lanes < channels
    ):
        lanes //= 2
    scale.pixels, scale.lanes = pixels, lanes
    return batch * -(-count // (lanes * pixels))


def _shared_words(radius: int) -> int:
    """Size of the shared memory in words, equal to `layout_for(radius).words` in fuse_and_smooth.cuh."""
    window = _TILE + 2 * radius
    fused = _TILE * (window + (3 if window % 4 else 1))
    samples = _TILE * MAX_SCALES * 3
    return 2 * radius + 4 + fused + _TILE * (_TILE + 1) + samples + _WARPS
