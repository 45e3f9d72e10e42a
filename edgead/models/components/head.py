"""Anomaly-map operator in PyTorch: the cosine map that losses use, and the head that scores images of a run.

The head has the same matrix form as the exported graph (`edgead.export.head.onnx_function`). Tests compare both with
the float64 oracle in `edgead.imaging.anomaly_map`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgead.imaging.anomaly_map import EPSILON, bilinear_matrix, gaussian_matrix
from edgead.types import Float64Array, HeadSpec

# Half precision can represent this number, and useful features are longer.
UNIT_EPSILON = 1e-4


def cosine_map(teacher: Tensor, student: Tensor) -> Tensor:
    """Compute 1 - cosine similarity over channels, in float32 or float64.

    Args:
        teacher: (N, C, H, W).
        student: (N, C, H, W).

    Returns:
        (N, H, W), from 0 to 2; 1 where the vector of either side is zero.
    """
    dtype = torch.promote_types(teacher.dtype, torch.float32)
    t, s = teacher.to(dtype), student.to(dtype)
    dot = (t * s).sum(1)
    t_norm = torch.linalg.vector_norm(t, dim=1).clamp_min(EPSILON)
    s_norm = torch.linalg.vector_norm(s, dim=1).clamp_min(EPSILON)
    distance: Tensor = 1.0 - dot / (t_norm * s_norm)
    return distance


def unit(features: Tensor) -> Tensor:
    """Normalise feature vectors to length 1, so that they can be concatenated with others.

    If vectors of length 1 are concatenated, their cosine map is the mean of the single cosine maps. The formula is
    written out, so that a graph in half precision shows the range of its squares.

    Args:
        features: (N, C, H, W).

    Returns:
        (N, C, H, W); vectors shorter than 1e-4 are divided by 1e-4.
    """
    length = (features * features).sum(1, keepdim=True).sqrt()
    return features / length.clamp_min(UNIT_EPSILON)


class AnomalyMapHead(nn.Module):
    """Cosine maps, bilinear resize, fusion, Gaussian smoothing and maximum, for features of fixed sizes.

    Args:
        spec: Size of the map, fusion, smoothing and weights.
        sizes: (H_k, W_k) of the features, in their order.

    Raises:
        ValueError: The weights are of another number of scales.
    """

    smooth_rows: Tensor
    smooth_columns: Tensor

    def __init__(self, spec: HeadSpec, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.spec = spec
        smooth_rows, smooth_columns = (gaussian_matrix(n, spec.sigma) for n in (spec.height, spec.width))
        for k, ((height, width), weight) in enumerate(zip(sizes, spec.weights_of(len(sizes)), strict=True)):
            rows = weight * bilinear_matrix(spec.height, height, spec.align_corners)
            columns = bilinear_matrix(spec.width, width, spec.align_corners)
            if spec.fusion == "add":
                rows, columns = smooth_rows @ rows, smooth_columns @ columns
            self._constant(f"rows_{k}", rows)
            self._constant(f"columns_{k}", columns.T)
        if spec.fusion == "multiply":
            self._constant("smooth_rows", smooth_rows)
            self._constant("smooth_columns", smooth_columns.T)

    def forward(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute anomaly maps and scores.

        Args:
            teacher: K tensors (N, C_k, H_k, W_k) of the teacher side.
            student: K tensors of the same shapes of the student side.

        Returns:
            Map (N, 1, H, W) float32 and score (N,) float32.

        Raises:
            ValueError: The two sides have different numbers of tensors.
        """
        maps = [
            getattr(self, f"rows_{k}") @ cosine_map(t, s) @ getattr(self, f"columns_{k}")
            for k, (t, s) in enumerate(zip(teacher, student, strict=True))
        ]
        fused = torch.stack(maps)
        if self.spec.fusion == "add":
            anomaly_map = fused.sum(0)
        else:
            anomaly_map = self.smooth_rows @ fused.prod(0) @ self.smooth_columns
        return anomaly_map[:, None], anomaly_map.amax((1, 2))

    def _constant(self, name: str, matrix: Float64Array) -> None:
        """Register a matrix as a float32 buffer that is not saved."""
        self.register_buffer(name, torch.as_tensor(matrix, dtype=torch.float32), persistent=False)
