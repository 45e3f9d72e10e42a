"""What the training loop, the exporter and the evaluation know of a method: this class, and no method's name.

A method is a frozen teacher, a student that is trained on pictures of good parts alone, a loss, and the head that turns
the disagreement of the two into an anomaly map. Everything that depends on the frozen side only is given by
`teacher_features`, so that the loop can compute it once for a fixed training set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from edgead.models.teacher import Teacher
from edgead.types import HeadSpec

# How the parts lie in their pictures: always the same way, or any way.
Pose = Literal["fixed", "free"]
POSES: tuple[Pose, ...] = get_args(Pose)


class DistillationMethod(nn.Module, ABC):
    """Teacher, student, loss and head of one method.

    A subclass calls `__init__` with its head, adds its trainable modules and implements `student_features` and `loss`.
    """

    def __init__(self, teacher: Teacher, head: HeadSpec) -> None:
        super().__init__()
        self.teacher = teacher
        self.head = head

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Features of the frozen teacher: (N, H, W, 3) uint8 RGB to K tensors (N, C_k, H_k, W_k)."""
        features: list[Tensor] = self.teacher(images)
        return features

    @abstractmethod
    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """What the student gives for a batch, of the same shapes as `teacher_features`.

        images: (N, H, W, 3) uint8 RGB. teacher_features: K tensors (N, C_k, H_k, W_k) of the same pictures.
        """

    @abstractmethod
    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """The training loss of a batch: a scalar, the mean over its pictures."""

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both sides for a batch (N, H, W, 3) uint8 RGB: what the head takes, and what is exported."""
        teacher = self.teacher(images)
        return teacher, self.student_features(images, teacher)

    def forward(self, images: Tensor, teacher_features: list[Tensor]) -> Tensor:
        """The loss of a training batch; one call, so that data-parallel wrappers see it."""
        return self.loss(teacher_features, self.student_features(images, teacher_features))
