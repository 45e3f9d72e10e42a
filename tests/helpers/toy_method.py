"""A method as small as one can be, with what makes exporting hard: batch norm, a transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgead.types import HeadSpec


class ToyMethod(nn.Module):
    """Two scales at strides 4 and 8; random weights, batch norm with statistics that are not the identity."""

    def __init__(self, head: HeadSpec, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.teacher_1 = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
            self.teacher_2 = nn.Sequential(
                nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()
            )
            self.student_2 = nn.Conv2d(12, 12, 1)
            self.student_1 = nn.Sequential(nn.ConvTranspose2d(12, 8, 2, 2, bias=False), nn.BatchNorm2d(8))
            self.student_3 = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU())
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, std=0.2)
                    nn.init.uniform_(module.running_var, 0.5, 2.0)
        self.head = head

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        scaled = images.float().permute(0, 3, 1, 2) / 127.5 - 1.0
        teacher_1 = self.teacher_1(scaled)
        teacher_2 = self.teacher_2(teacher_1)
        student_2 = self.student_2(teacher_2)
        return [teacher_1, teacher_2], [self.student_1(self.student_3(student_2)), student_2]
