"""The definition of the anomaly-map operator, in NumPy and float64.

Every cosine-distillation method ends in this operator: it turns features of a teacher and of a student at several
scales into one map and one score. The function `anomaly_map` is the reference for the graph that ONNX Runtime runs, the
CUDA kernel and the torch module. It follows the definition directly, for clarity and not for speed. This module also
computes the matrices of the linear steps; exported graphs use them instead of a resize and a convolution.

The defaults (sum over scales, aligned corners, Gaussian of sigma 4, maximum) follow the evaluation of Reverse
Distillation: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, section
3.4. The product over scales follows STFPM: Wang et al., "Student-Teacher Feature Pyramid Matching", BMVC 2021,
equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.types import Float64Array, Fusion, HeadSpec

EPSILON = 1e-8
"""Lower bound of the norm that divides a feature vector; part of the operator's definition."""


def cosine_map(teacher: npt.NDArray[Any], student: npt.NDArray[Any]) -> Float64Array:
    """Compute the cosine distance of two feature maps at every position.

    Args:
        teacher: Features of the teacher, (N, C, H, W), any float dtype.
        student: Features of the student, of the same shape, any float dtype.

    Returns:
        Distances, (N, H, W) float64, from 0 (same direction) to 2 (opposite). A zero vector has distance 1.

    Raises:
        ValueError: The shapes differ or are not four-dimensional.
    """
    if teacher.ndim != 4 or teacher.shape != student.shape:
        raise ValueError(
            f"teacher and student must have one shape (N, C, H, W), not {teacher.shape} and {student.shape}"
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
    weights: Sequence[float] = (),
) -> tuple[Float64Array, Float64Array]:
    """Compute the anomaly map and the score from features at K >= 1 scales.

    Args:
        teacher: Features of the teacher at each scale k, (N, C_k, H_k, W_k), any float dtype.
        student: Features of the student, of the same shapes, any float dtype.
        height: Height of the map, in pixels.
        width: Width of the map, in pixels.
        fusion: Operation that joins the scales, `add` or `multiply`.
        sigma: Standard deviation of the Gaussian smoothing, in pixels of the map; 0 for no smoothing.
        align_corners: Corner alignment of the bilinear resize, as in torch's interpolate.
        weights: Factor of the cosine map of each scale, above 0; empty for factors of 1.

    Returns:
        The map, (N, 1, height, width) float64, and its maximum, the score, (N,) float64.

    Raises:
        ValueError: The lists are empty or differ in length, shapes do not fit, or an argument is out of range.
    """
    spec = HeadSpec(height, width, fusion, sigma, align_corners, tuple(weights))
    if len(teacher) != len(student) or not teacher:
        raise ValueError(
            f"there must be one student feature per teacher feature, not {len(student)} for {len(teacher)}"
        )
    scales = [
        weight * _resize(cosine_map(t, s), spec.height, spec.width, spec.align_corners)
        for t, s, weight in zip(teacher, student, spec.weights_of(len(teacher)), strict=True)
    ]
    if len({len(scale) for scale in scales}) != 1:
        raise ValueError(f"all scales must have one batch size, not {[len(scale) for scale in scales]}")
    fused = np.sum(scales, axis=0) if spec.fusion == "add" else np.prod(scales, axis=0)
    smooth = _smooth(_smooth(fused, 1, spec.sigma), 2, spec.sigma)
    return smooth[:, None], smooth.max(axis=(1, 2))


def bilinear_matrix(size_out: int, size_in: int, align_corners: bool = True) -> Float64Array:
    """Compute the matrix B of a bilinear resize: B @ x resizes a column x.

    `B_rows @ map @ B_columns.T` resizes a map. The coordinates follow ONNX's Resize and torch's interpolate.

    Args:
        size_out: Number of output pixels.
        size_in: Number of input pixels.
        align_corners: Corner alignment of the resize.

    Returns:
        Matrix, (size_out, size_in) float64.

    Raises:
        ValueError: A size is below 1.
    """
    low, high, fraction = _coordinates(size_out, size_in, align_corners)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    matrix[rows, low] = 1.0 - fraction
    # The second weight is added, because at the far edge `high` equals `low`.
    matrix[rows, high] += fraction
    return matrix


def gaussian_matrix(size: int, sigma: float) -> Float64Array:
    """Compute the matrix G of a Gaussian smoothing: G @ x smooths a column x.

    The border is mirrored at the pixel edge (d c b a | a b c d | d c b a), repeatedly if the kernel is wider than the
    column.

    Args:
        size: Number of pixels.
        sigma: Standard deviation of the Gaussian, in pixels; 0 gives the identity.

    Returns:
        Matrix, (size, size) float64.

    Raises:
        ValueError: `size` is below 1, or `sigma` is negative or not finite.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    weights = _gaussian_weights(sigma)
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        # The mirrored column repeats every 2 * size pixels; its second half runs backwards.
        position = (rows + offset) % (2 * size)
        columns = np.where(position < size, position, 2 * size - 1 - position)
        matrix[rows, columns] += weight
    return matrix


def _coordinates(
    size_out: int, size_in: int, align_corners: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float64Array]:
    """Return for every output pixel the two input pixels around it and the weight of the second."""
    if size_out < 1 or size_in < 1:
        raise ValueError(f"sizes must be at least 1, not {size_out} from {size_in}")
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
    """Resize (N, H, W) bilinearly from the four neighbours of every output pixel."""
    top, bottom, down = _coordinates(height, maps.shape[1], align_corners)
    left, right, across = _coordinates(width, maps.shape[2], align_corners)
    down = down[:, None]
    rows = maps[:, top] * (1.0 - down) + maps[:, bottom] * down
    resized: Float64Array = rows[:, :, left] * (1.0 - across) + rows[:, :, right] * across
    return resized


def _gaussian_weights(sigma: float) -> Float64Array:
    """Return the normalised kernel of radius int(4 sigma + 0.5), as in SciPy's gaussian_filter."""
    if not (np.isfinite(sigma) and sigma >= 0.0):
        raise ValueError(f"sigma must be a finite number of pixels, 0 or more, not {sigma}")
    radius = int(4.0 * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    normalised: Float64Array = weights / weights.sum()
    return normalised


def _smooth(maps: Float64Array, axis: int, sigma: float) -> Float64Array:
    """Convolve (N, H, W) with the Gaussian along one axis; the border is mirrored at the pixel edge."""
    weights = _gaussian_weights(sigma)
    radius, size = len(weights) // 2, maps.shape[axis]
    pads = [(0, 0)] * maps.ndim
    pads[axis] = (radius, radius)
    padded = np.pad(maps, pads, mode="symmetric")
    smooth = np.zeros_like(maps)
    for shift, weight in enumerate(weights):
        smooth += weight * np.take(padded, range(shift, shift + size), axis=axis)
    return smooth
