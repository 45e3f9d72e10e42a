"""Student-Teacher Feature Pyramid Matching (STFPM): an untrained copy of the teacher learns the teacher's features from
the image.

Wang, Han, Ding & Huang, "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021, as told by
Polidori, "Leveraging Student-Teacher learning framework", Politecnico di Milano 2022, section 3.3.

teacher  a frozen network, its features at strides 4, 8 and 16 (of a ResNet18 in the paper)
student  the same layers with random weights; it sees the image, not the teacher's features
loss     equation 5: half the squared distance of the two feature vectors at a position, each of length 1; the mean over
         positions, summed over scales. Of vectors of length 1 that is one minus their cosine: the cosine map
map      the same distances, enlarged bilinearly and multiplied over the scales (section 5.1), so that a scale which
         sees nothing silences the others; not smoothed in the paper
training `paper` as published: stochastic gradient descent. `edge` takes RD's Adam: on a few hundred images it brings
         a student of EfficientNet-Lite as far in 6 epochs as the other in 20, by the loss on held-out good images

The authors' script leaves out the half, so that with the same learning rate it takes steps twice as long, and
multiplies maps of 64 x 64 before it enlarges the product.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import DistillationMethod, Hyperparameters, MethodConfig
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import STRIDES, Backbone, Teacher


class FeaturePyramidMatching(DistillationMethod):
    """STFPM with a student of the teacher's architecture."""

    losses = ("per-position",)
    fusion = "multiply"
    presets = MappingProxyType(
        {
            "edge": Hyperparameters("per-position", 4.0, 100, 16, 0.02, "one-cycle"),
            "paper": Hyperparameters("per-position", 0.0, 100, 32, 0.4, "constant", optimizer="sgd"),
        }
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.student: nn.Module = untrained_copy(teacher.name)

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """The student's own view of the images, of the teacher's shapes."""
        features: list[Tensor] = self.student(images)
        return features

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Equation 5, its mean over positions, summed over scales."""
        pairs = zip(teacher_features, student_features, strict=True)
        return torch.stack([cosine_map(teacher, student).mean() for teacher, student in pairs]).sum()


def untrained_copy(name: str, strides: tuple[int, ...] = STRIDES) -> Backbone:
    """An untrained student of the architecture that timm's name stands for.

    All its batch normalisations start at 1, as in the authors' network; timm starts the last of a ResNet's block at 0.
    """
    student = Backbone(name, strides, trimmed=True)
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return student
