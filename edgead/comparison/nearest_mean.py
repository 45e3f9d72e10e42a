"""The baseline that a student has to beat: how far the teacher's features are from their mean over the good images.

Nothing is learnt but that mean, one vector for every position and stride of the teacher. It stands where a method has
its student, before the same head as Reverse Distillation has (cosine distance at every position, scales added, Gaussian
of sigma 4, maximum), so what a method gains over it is the gain of its student. It has no notion of a part that turns
or moves: where parts lie in any alignment, it sees the alignment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgead.models.components.head import AnomalyMapHead
from edgead.models.components.teacher import create_teacher
from edgead.runtime.base import check_batch, graph_inputs, graph_outputs
from edgead.types import Closing, HeadSpec, Prediction, UInt8Array

SIGMA_PX = 4.0
BATCH = 16


def nearest_mean(teacher: str, weights: str, good: UInt8Array) -> NearestMeanSession:
    """Open the baseline of a teacher, by name and origin of its weights; raises what `create_teacher` raises."""
    # With random weights, too, it is the same whenever it is made.
    torch.manual_seed(0)
    return NearestMeanSession(create_teacher(teacher, weights), good)


class NearestMeanSession(Closing):
    """Scores images by their cosine distance from the mean of the good ones; a `Session` on the CPU.

    teacher: uint8 images (N, H, W, 3) to features (N, C_k, H_k, W_k), in evaluation mode. good: (N, H, W, 3) uint8
    RGB, N >= 1.
    """

    @torch.no_grad()
    def __init__(self, teacher: nn.Module, good: UInt8Array) -> None:
        height, width = good.shape[1:3]
        self.inputs = graph_inputs(height, width)
        self.outputs = graph_outputs(height, width)
        self._teacher = teacher
        # Added in float64, as hundreds of images may be summed.
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
        """Score (N, H, W, 3) uint8 RGB; InputError for another shape or dtype."""
        check_batch(batch, *self._size)
        features = self._teacher(torch.from_numpy(batch))
        anomaly_map, anomaly_score = self._head(
            features, [x.expand(len(batch), -1, -1, -1) for x in self._means]
        )
        return Prediction(anomaly_map.numpy(), anomaly_score.numpy())

    def close(self) -> None:
        """Nothing is held beyond memory."""
