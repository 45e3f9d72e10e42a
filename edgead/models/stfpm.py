"""Student-Teacher Feature Pyramid Matching (STFPM): an untrained copy of the teacher learns its features from images.

Wang, Han, Ding & Huang, "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021, as described in
Polidori, "Leveraging Student-Teacher learning framework", Politecnico di Milano 2022, section 3.3.

teacher  a frozen network with features at strides 4, 8 and 16 (a ResNet18 in the paper)
student  the same layers with random weights; its input is the image, not the teacher's features
loss     equation 5: half the squared distance of the two feature vectors at a position, each of length 1; the mean over
         positions, summed over scales. For vectors of length 1 this is one minus their cosine, the cosine map
map      the same distances, enlarged bilinearly and multiplied over the scales (section 5.1), so that a scale that
         finds nothing silences the others; the paper does not smooth
training `paper` as published: stochastic gradient descent. `edge` uses RD's Adam: on a few hundred images a student of
         EfficientNet-Lite reaches the same loss on held-out good images in 6 epochs instead of 20

The authors' script omits the half, so with the same learning rate its steps are twice as long. It multiplies maps of
64 x 64 before it enlarges the product.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import DistillationMethod, MethodConfig
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import STRIDES, Backbone, Teacher
from edgead.models.hyperparameters import Hyperparameters


class FeaturePyramidMatching(DistillationMethod):
    """STFPM with a student of the teacher's architecture.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

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
        """Compute the student's features of the images. See DistillationMethod.student_features.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            teacher_features: Not used.

        Returns:
            Tensors of the shapes of the teacher's features.
        """
        features: list[Tensor] = self.student(images)
        return features

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute equation 5, the mean over positions, summed over scales. See DistillationMethod.loss."""
        pairs = zip(teacher_features, student_features, strict=True)
        return torch.stack([cosine_map(teacher, student).mean() for teacher, student in pairs]).sum()


def untrained_copy(name: str, strides: tuple[int, ...] = STRIDES) -> Backbone:
    """Create an untrained student of an architecture of timm.

    All batch normalisations start at weight 1, as in the authors' network. timm starts the last batch normalisation of
    a ResNet's block at 0.

    Args:
        name: Name in timm.
        strides: Strides of the features, ascending.

    Returns:
        Backbone with random weights.

    Raises:
        TeacherError: See Backbone.
    """
    student = Backbone(name, strides, trimmed=True)
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return student
