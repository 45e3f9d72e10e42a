"""Baseline of a comparison: distance of the teacher's features from their mean over the good images.

The baseline learns only this mean, one vector for each position and stride of the teacher. The mean takes the place of
the student, before the same head as in Reverse Distillation (cosine distance at every position, sum over the scales,
Gaussian of sigma 4, maximum). So the difference between a method and the baseline is the gain of its student. The
baseline does not support parts that turn or move: if parts are unaligned, it scores their position and rotation as
anomalies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgead.models.components.head import AnomalyMapHead
from edgead.models.components.teacher import create_teacher
from edgead.runtime.base import check_batch, graph_inputs, graph_outputs
from edgead.types import Closing, HeadSpec, Prediction, UInt8Array

SIGMA_PX = 4.0
"""Standard deviation of the Gaussian, in pixels of the map."""

BATCH = 16


def nearest_mean(teacher: str, weights: str, good: UInt8Array) -> NearestMeanSession:
    """Make the baseline of a teacher.

    Args:
        teacher: Name of the teacher in timm.
        weights: Source of the teacher's weights, see `create_teacher`.
        good: N good RGB images, uint8 (N, H, W, 3), N >= 1.

    Returns:
        Session of the baseline.

    Raises:
        TeacherError: If the teacher is unknown, or its weights cannot be loaded.
    """
    # With random weights too, the result must be the same in each run.
    torch.manual_seed(0)
    return NearestMeanSession(create_teacher(teacher, weights), good)


class NearestMeanSession(Closing):
    """`Session` on the CPU that scores images by the cosine distance of their features from the mean.

    Args:
        teacher: Teacher in evaluation mode. It maps uint8 images (N, H, W, 3) to features (N, C_k, H_k, W_k).
        good: N good RGB images, uint8 (N, H, W, 3), N >= 1.

    Attributes:
        inputs: See `Session.inputs`.
        outputs: See `Session.outputs`.
    """

    @torch.no_grad()
    def __init__(self, teacher: nn.Module, good: UInt8Array) -> None:
        height, width = good.shape[1:3]
        self.inputs = graph_inputs(height, width)
        self.outputs = graph_outputs(height, width)
        self._teacher = teacher
        # In float64, because the sum may be over hundreds of images.
        batches = torch.split(torch.from_numpy(good), BATCH)
        sums: list[Tensor] = [x.double().sum(0, keepdim=True) for x in teacher(batches[0])]
        for images in batches[1:]:
            sums = [
                total + x.double().sum(0, keepdim=True)
                for total, x in zip(sums, teacher(images), strict=True)
            ]
        self._means = [(total / len(good)).float() for total in sums]
        sizes = [(x.shape[2], x.shape[3]) for x in self._means]
        self._head = AnomalyMapHead(HeadSpec(height, width, "add", SIGMA_PX), sizes)
        self._size = (height, width)

    @torch.no_grad()
    def infer(self, batch: UInt8Array) -> Prediction:
        """See `Session.infer`."""
        check_batch(batch, *self._size)
        features = self._teacher(torch.from_numpy(batch))
        anomaly_map, anomaly_score = self._head(
            features, [x.expand(len(batch), -1, -1, -1) for x in self._means]
        )
        return Prediction(anomaly_map.numpy(), anomaly_score.numpy())

    def close(self) -> None:
        """See `Session.close`; the session holds memory only."""
