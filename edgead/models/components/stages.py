"""A teacher with the features of all stages at strides 4, 8 and 16, not only of the last stage at each stride.

EfficientNets have several stages of one stride, and so has MobileNetV2, which timm builds alike: two stages of
EfficientNet-Lite0 have stride 16, with 80 and 112 channels. A residual network has one stage for each stride. Of other
networks the last stage at each stride takes part.
"""

from __future__ import annotations

import torch
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor

from edgead.models.components.teacher import PROBE_PX, STRIDES, Teacher
from edgead.models.components.teacher_weights import load_weights


class StagesTeacher(Teacher):
    """Frozen backbone that gives the features of every stage with stride 4, 8 or 16.

    Args:
        name: Name of a timm network.

    Attributes:
        strides: Stride of each feature, ascending.
        channels: Number of channels of each feature.

    Raises:
        TeacherError: See Backbone.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.strides: tuple[int, ...] = STRIDES
        self.stages: dict[int, tuple[int, int]] = {}
        if isinstance(self.layers, EfficientNetFeatures):
            self.stages = _stages(self.layers)
            self.strides, self.channels = (
                tuple(column) for column in zip(*self.stages.values(), strict=True)
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of images. See Backbone.forward."""
        if not self.stages:
            return super().forward(images)
        layers = self.layers
        assert isinstance(layers, EfficientNetFeatures)
        x = layers.bn1(layers.conv_stem(self.normalised(images)))
        features = []
        # The stages after the last feature are left out, which timm would compute too.
        for number, stage in enumerate(layers.blocks[: max(self.stages) + 1]):
            x = stage(x)
            if number in self.stages:
                features.append(x)
        return features


def create_stages_teacher(name: str, weights: str) -> StagesTeacher:
    """Create a teacher of all stages with weights.

    Args:
        name: Name of a timm network.
        weights: See `edgead.models.components.teacher.create_teacher`.

    Returns:
        Frozen teacher in evaluation mode.

    Raises:
        TeacherError: See `edgead.models.components.teacher.create_teacher`.
    """
    teacher = StagesTeacher(name)
    if weights != "random":
        load_weights(teacher.layers, name, weights)
    return teacher


@torch.no_grad()
def _stages(layers: EfficientNetFeatures) -> dict[int, tuple[int, int]]:
    """Return the stride and the number of channels of each stage at strides 4, 8 and 16, by its number."""
    x = layers.bn1(layers.conv_stem(torch.zeros(1, 3, PROBE_PX, PROBE_PX)))
    found = {}
    for number, stage in enumerate(layers.blocks):
        x = stage(x)
        stride = PROBE_PX // x.shape[2]
        if stride in STRIDES:
            found[number] = (stride, x.shape[1])
    return found
