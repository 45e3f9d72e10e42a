"""The definition of the anomaly-map operator, in NumPy and float64.

Every cosine-distillation method ends in this one operator: features of a teacher and of a student at several
scales become one map and one score. The graph that ONNX Runtime runs, the CUDA kernel and the torch module
are all compared with the function `anomaly_map` here, so it is written directly from the definition and for
clearness, not for speed. The matrices of the linear steps, which exported graphs use instead of a resize and
a convolution, are made here too.

The choices (sum over scales, aligned corners, Gaussian of sigma 4, maximum) are those of Reverse
Distillation's evaluation: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding",
CVPR 2022, section 3.4. The product over scales is that of STFPM: Wang et al., "Student-Teacher Feature
Pyramid Matching", BMVC 2021, equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.types import Float64Array, Fusion, HeadSpec

EPSILON = 1e-8
"""Smallest norm a feature vector is divided by; part of the operator's definition."""


def cosine_map(teacher: npt.NDArray[Any], student: npt.NDArray[Any]) -> Float64Array:
    """Give the cosine distance of two feature maps at every position, 0 (same direction) to 2 (opposite).

    teacher, student: (N, C, H, W), any float dtype. Returns (N, H, W) float64. A zero vector has distance 1.
    Raises ValueError when the shapes differ or are not four-dimensional.
    """
    if teacher.ndim != 4 or teacher.shape != student.shape:
        raise ValueError(
            f"teacher and student share a shape (N, C, H, W), not {teacher.shape} and {student.shape}"
        )
    t, s = teacher.astype(np.float64), student.astype(np.float64)
    t_norm = np.maximum(np.sqrt((t * t).sum(axis=1)), EPSILON)
    s_norm = np.maximum(np.sqrt((s * s).sum(axis=1)), EPSILON)
    cosine: Float64Array = (t * s).sum(axis=1) / (t_norm * s_norm)
    return 1.0 - cosine


def anomaly_map(
    teacher: Sequence[npt.NDArray[Any]],
    student: Sequence[npt.NDArray[Any]],
    height: int,
    width: int,
    fusion: Fusion = "add",
    sigma: float = 4.0,
    align_corners: bool = True,
) -> tuple[Float64Array, Float64Array]:
    """Give the map and the score of teacher and student features at K >= 1 scales: the operator itself.

    teacher[k], student[k]: (N, C_k, H_k, W_k), any float dtype. height, width: of the map in pixels. fusion:
    `add` or `multiply` over the scales. sigma: of the Gaussian smoothing in pixels of the map, 0 for none.
    align_corners: of the bilinear resize. Returns the map (N, 1, height, width) and its maximum (N,), both
    float64.

    Raises ValueError when the lists are empty or of two lengths, shapes do not fit, or an attribute is out of
    range.
    """
    spec = HeadSpec(height, width, fusion, sigma, align_corners)
    if len(teacher) != len(student) or not teacher:
        raise ValueError(f"one student feature per teacher feature, not {len(student)} for {len(teacher)}")
    scales = [
        _resize(cosine_map(t, s), spec.height, spec.width, spec.align_corners)
        for t, s in zip(teacher, student, strict=True)
    ]
    if len({len(scale) for scale in scales}) != 1:
        raise ValueError(f"all scales have one batch size, not {[len(scale) for scale in scales]}")
    fused = np.sum(scales, axis=0) if spec.fusion == "add" else np.prod(scales, axis=0)
    smooth = _smooth(_smooth(fused, 1, spec.sigma), 2, spec.sigma)
    return smooth[:, None], smooth.max(axis=(1, 2))


def bilinear_matrix(size_out: int, size_in: int, align_corners: bool = True) -> Float64Array:
    """Give the matrix B, (size_out, size_in) float64, with B @ x the bilinear resize of a column x.

    A map is resized by `B_rows @ map @ B_columns.T`. Coordinates as in ONNX's Resize and torch's interpolate.
    Raises ValueError when a size is below 1.
    """
    low, high, fraction = _coordinates(size_out, size_in, align_corners)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    matrix[rows, low] = 1.0 - fraction
    # Added, because at the far edge `high` is `low`.
    matrix[rows, high] += fraction
    return matrix


def gaussian_matrix(size: int, sigma: float) -> Float64Array:
    """Give the matrix G, (size, size) float64, with G @ x the Gaussian smoothing of a column x.

    Mirrored about the pixel edge (d c b a | a b c d | d c b a), as often as needed where the kernel is wider
    than the column. sigma in pixels, 0 gives the identity. Raises ValueError when size is below 1 or sigma is
    negative.
    """
    if size < 1:
        raise ValueError(f"a size is at least 1, not {size}")
    weights = _gaussian_weights(sigma)
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        # The mirrored column repeats every 2 * size; its second half runs backwards.
        position = (rows + offset) % (2 * size)
        columns = np.where(position < size, position, 2 * size - 1 - position)
        matrix[rows, columns] += weight
    return matrix


def _coordinates(
    size_out: int, size_in: int, align_corners: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float64Array]:
    """Give for every output pixel the two input pixels around it and how far it is towards the second."""
    if size_out < 1 or size_in < 1:
        raise ValueError(f"sizes are at least 1, not {size_out} from {size_in}")
    out = np.arange(size_out, dtype=np.float64)
    if not align_corners:
        source = np.maximum((out + 0.5) * (size_in / size_out) - 0.5, 0.0)
    elif size_out == 1:
        source = np.zeros(1)
    else:
        source = out * (size_in - 1) / (size_out - 1)
    low = np.minimum(np.floor(source).astype(np.intp), size_in - 1)
    return low, np.minimum(low + 1, size_in - 1), source - low


def _resize(maps: Float64Array, height: int, width: int, align_corners: bool) -> Float64Array:
    """Resize (N, H, W) bilinearly by looking up the four neighbours of every output pixel."""
    top, bottom, down = _coordinates(height, maps.shape[1], align_corners)
    left, right, across = _coordinates(width, maps.shape[2], align_corners)
    down = down[:, None]
    rows = maps[:, top] * (1.0 - down) + maps[:, bottom] * down
    resized: Float64Array = rows[:, :, left] * (1.0 - across) + rows[:, :, right] * across
    return resized


def _gaussian_weights(sigma: float) -> Float64Array:
    """Give the normalised kernel: radius int(4 sigma + 0.5), as in SciPy's gaussian_filter."""
    if not (np.isfinite(sigma) and sigma >= 0.0):
        raise ValueError(f"sigma is a finite number of pixels, 0 or more, not {sigma}")
    radius = int(4.0 * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    normalised: Float64Array = weights / weights.sum()
    return normalised


def _smooth(maps: Float64Array, axis: int, sigma: float) -> Float64Array:
    """Convolve (N, H, W) with the Gaussian along one axis, the border mirrored about the pixel edge."""
    weights = _gaussian_weights(sigma)
    radius, size = len(weights) // 2, maps.shape[axis]
    pads = [(0, 0)] * maps.ndim
    pads[axis] = (radius, radius)
    padded = np.pad(maps, pads, mode="symmetric")
    smooth = np.zeros_like(maps)
    for shift, weight in enumerate(weights):
        smooth += weight * np.take(padded, range(shift, shift + size), axis=axis)
    return smooth
