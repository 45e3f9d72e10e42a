"""Students of RD that `accuracy_steps.py` tries beside the default one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

from torch import Tensor, nn

from edgead.imaging.preprocess import ModelSize
from edgead.models import rd
from edgead.models.base import Alignment
from edgead.models.components import rd_student
from edgead.models.components.blocks import (
    BasicBlock,
    Resample,
    SeparableBlock,
    conv_bn_relu,
    power_of_two,
    residual_stage,
)
from edgead.models.components.rd_student import Bottleneck, Decoder, create_student
from edgead.models.components.teacher import STRIDES, Teacher

FINE_STRIDES = (2, *STRIDES)

NARROW = 0.64
"""Width of the narrow student. At 320 pixels it makes `rd` as expensive as the default at 256 (1.9 GFLOP)."""


class WithoutFinest(nn.Module):
    """An embedding that does not see the first scale: defects fit through fine features."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map four tensors (N, C_k, H / s_k, W / s_k) to one (N, C, H / 32, W / 32)."""
        embedding: Tensor = self.bottleneck(features[1:])
        return embedding


def fine_student(teacher: Teacher, size: ModelSize, alignment: Alignment) -> tuple[nn.Module, Decoder]:
    """Create the default student with one more stage of the decoder, at stride 2."""
    coarser = SimpleNamespace(architecture=teacher.architecture, channels=teacher.channels[1:])
    bottleneck, decoder = create_student(coarser, size, alignment)
    channels, width = power_of_two(teacher.channels[1]), power_of_two(teacher.channels[0])
    if alignment == "aligned":
        stage = nn.Sequential(
            conv_bn_relu(channels, width, 1),
            nn.Upsample((-(-size.height_px // 2), -(-size.width_px // 2)), mode="nearest"),
            SeparableBlock(width, width, Resample.KEEP),
        )
    else:
        stage = residual_stage(BasicBlock, channels, width, 2, Resample.DOUBLE)
    decoder.stages.append(stage)
    decoder.outputs.append(nn.Conv2d(width, teacher.channels[0], 1))
    return WithoutFinest(bottleneck), decoder


def narrow_width(channels: int) -> int:
    """Return `NARROW` of the width of the default student, as a multiple of 8."""
    return 8 * max(1, round(NARROW * power_of_two(channels) / 8))


@contextmanager
def students(strides: tuple[int, ...], narrow: bool) -> Iterator[None]:
    """Let `rd` create another student.

    Args:
        strides: Strides of the teacher's features, `STRIDES` or `FINE_STRIDES`.
        narrow: Whether the student is narrower.
    """
    create = fine_student if strides == FINE_STRIDES else create_student
    width = narrow_width if narrow else power_of_two
    with (
        patch.object(rd, "STRIDES", strides),
        patch.object(rd, "create_student", create),
        patch.object(rd_student, "power_of_two", width),
    ):
        yield
