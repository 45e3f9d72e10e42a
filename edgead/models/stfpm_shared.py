"""STFPM with a shared start: the student begins with the features of the teacher's first layers.

Barusco, Borsatti, Dalle Pezze, Paissan, Farella & Susto, "PaSTe: Improving the Efficiency of Visual Anomaly Detection
at the Edge", 2024, arXiv:2410.11591 (Partially Shared Teacher-student). The layers before the first compared features
are the most expensive ones for their size, and a student learns there what every network learns. It takes the teacher's
features instead, so the device computes these layers once, and the training has no gradients at the finest resolution.

teacher  as in STFPM, with its features at stride 2 too
student  STFPM's student without the layers up to stride 2, where its input are the teacher's features. The paper
         chooses the last shared layer for each network, below the first compared one
         loss, map and training are as in STFPM
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgead.errors import TeacherError
from edgead.models.base import MethodConfig
from edgead.models.components.teacher import DEFAULT_TEACHER, PROBE_PX, STRIDES, Teacher
from edgead.models.components.teacher_weights import load_weights
from edgead.models.stfpm import FeaturePyramidMatching, untrained_copy

SHARED_STRIDE = 2


class SharedTeacher(Teacher):
    """Teacher that also gives the features from which a student starts.

    Args:
        name: Name in timm.

    Raises:
        TeacherError: See Backbone.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, (SHARED_STRIDE, *STRIDES))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features at strides 4, 8 and 16, and then those at stride 2.

        Args:
            images: (N, H, W, 3) RGB from 0 to 255, usually uint8.

        Returns:
            Four tensors (N, C_k, H / s_k, W / s_k).
        """
        shared, *compared = super().forward(images)
        return [*compared, shared]


class SharedFeaturePyramidMatching(FeaturePyramidMatching):
    """STFPM with a student that starts from the teacher's features at stride 2.

    Args:
        teacher: Teacher of `create_teacher`.
        config: Configuration of the method.

    Raises:
        TeacherError: The layers of the teacher up to stride 2 cannot be separated from the others.
    """

    def __init__(self, teacher: SharedTeacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        self.student = student_without_start(teacher.name)

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> SharedTeacher:
        """Create the teacher. See DistillationMethod.create_teacher."""
        teacher = SharedTeacher(name)
        if weights != "random":
            load_weights(teacher.layers, name, weights)
        return teacher

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute the student's features from those that it shares with the teacher.

        Args:
            images: Not used.
            teacher_features: Features of SharedTeacher.

        Returns:
            Three tensors of the shapes of the teacher's features at strides 4, 8 and 16.
        """
        features: list[Tensor] = self.student(teacher_features[-1])
        return features[1:]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Compute equation 5 of STFPM for the compared features. See DistillationMethod.loss."""
        return super().loss(teacher_features[:-1], student_features)

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Leave out the shared features. See DistillationMethod.head_features."""
        return teacher_features[:-1], student_features


def student_without_start(name: str) -> nn.Module:
    """Create an untrained student without its layers up to stride 2.

    Args:
        name: Name in timm.

    Returns:
        Layers from (N, C, H / 2, W / 2), features at stride 2, to these and the features at strides 4, 8 and 16.

    Raises:
        TeacherError: See Backbone, or the layers cannot be separated.
    """
    layers: Any = untrained_copy(name, (SHARED_STRIDE, *STRIDES)).layers
    layers.eval()
    with torch.no_grad():
        expected = layers(torch.randn(1, 3, PROBE_PX, PROBE_PX))
        try:
            _remove_start(layers.model, layers.feature_info.module_name(0))
            found = layers(expected[0])
            separated = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        except (AttributeError, RuntimeError):
            separated = False
    if not separated:
        raise TeacherError(
            f"the first layers of teacher {name!r} cannot be shared with a student",
            hint=f"give a ResNet, EfficientNet-Lite or MobileNetV2, for example {DEFAULT_TEACHER}, "
            "or --method stfpm",
        )
    student: nn.Module = layers
    return student


def _remove_start(module: nn.Module, last: str) -> None:
    """Replace the layers up to `last` (such as "blocks.0") by identities, in the order of their definition."""
    name, _, rest = last.partition(".")
    for child_name, child in list(module.named_children()):
        if child_name == name and rest:
            _remove_start(child, rest)
            return
        setattr(module, child_name, nn.Identity())
        if child_name == name:
            return
    raise AttributeError(f"no layer {last}")
