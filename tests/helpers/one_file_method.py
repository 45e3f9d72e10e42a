"""A new method as somebody would bring one, whole: a student draws what all parts share, moved by a narrow code."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgead.models.base import DistillationMethod, MethodConfig
from edgead.models.components.head import cosine_map
from edgead.models.hyperparameters import Hyperparameters


class SharedSeed(DistillationMethod):
    """The teacher's features from a learnt seed of the image's size; two channels say how this part differs."""

    losses = ("per-position",)
    fusion = "add"
    presets = MappingProxyType({"edge": Hyperparameters("per-position", 1.0, 30, 8, 0.02, "one-cycle")})

    def __init__(self, teacher: nn.Module, setting: MethodConfig) -> None:
        super().__init__(teacher, setting)
        fine, middle, coarse = teacher.channels
        height, width = setting.size.height_px // 16, setting.size.width_px // 16
        self.seed = nn.Parameter(torch.randn(1, 32, height, width))
        self.code = nn.Sequential(nn.Conv2d(coarse, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 32, 1))
        enlarged = [nn.ConvTranspose2d(32, fine, 4, 4), nn.ConvTranspose2d(32, middle, 2, 2)]
        self.grown = nn.ModuleList([*enlarged, nn.Conv2d(32, coarse, 1)])

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        common = self.seed + self.code(teacher_features[2])
        return [grow(common) for grow in self.grown]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        return sum(cosine_map(t, s).mean() for t, s in zip(teacher_features, student_features, strict=True))
