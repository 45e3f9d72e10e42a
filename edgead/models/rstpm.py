"""RSTPM: STFPM's student, and a second student that reconstructs the teacher's features from its last feature.

Yamada, Kamiya & Hotta, "Reconstructed Student-Teacher and Discriminative Networks for Anomaly Detection", 2022, and the
reproduction study of it (sections 3 and 4). Two pairs examine a part in two ways. If one pair misses a defect at a
scale, the other may find it. The discriminative network is in `rstpm_plus.py`.

teachers two frozen networks: ResNet18 for pair 1, ResNet50 for pair 2. Any other network teaches both pairs, so its
         features are computed once
students student 1 is STFPM's. Student 2 (section 4.7, the lighter design of the reproduction) starts from teacher 1's
         features at stride 32. It doubles the resolution three times, each with one residual block of 2x2 stride-2
         transposed convolutions, to teacher 2's features at strides 16, 8 and 4. The variant `direct` starts from
         student 1's features instead (section 4.6). The variant `deep` has the first design of the reproduction
         (section 4.5), modelled on a ResNet18: a front block of 3x3 convolutions that keeps resolution and channels,
         then three times a 3x3 transposed convolution that doubles the resolution and changes the channels, and a block
         that changes neither. The study does not give the number of blocks; here it is one each. Without attention,
         from a ResNet18 to a ResNet50, the second design then has 21.8 million parameters and the first 40.1 million;
         the study reports half
attention between two blocks the features are weighed by position with a map M of one channel, computed from teacher 2's
         features at that stride: 3x3 convolution, 1x1 convolution, sigmoid (section 3.3). x becomes M x (equation 7) or
         (1 + M) x (equation 8), at stride 16 and at stride 8. The standard variant uses one of each, `multiplied` and
         `added` use the same twice. The paper does not give the channels of the 3x3 convolution; here it is a quarter
loss     equations 3 to 6, the loss of STFPM, of both pairs. The pairs share no weights, so one optimiser for the sum
         has the same effect as two optimisers, and the two ways of the study (section 4.4) are one here. In `direct`
         student 1 learns from pair 2 too. `direct-split` is `direct` with an optimiser for each pair: no gradient of
         pair 2 reaches student 1. The layers of student 1 that only student 2 reads then learn from neither pair and
         keep their random start
map      equation 1 without its last factor: the maps of the two pairs are added, the scales are multiplied

The cosine map of two concatenated vectors, each of length 1, is the mean of their cosine maps. The head gets such
vectors and does not know the factor 2, so with three scales its map is an eighth of equation 1's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from edgead.errors import TeacherError
from edgead.models.base import STANDARD_VARIANT, MethodConfig
from edgead.models.components.blocks import BasicBlock, Resample, conv_bn_relu, initialise, power_of_two
from edgead.models.components.head import unit
from edgead.models.components.teacher import STRIDES, Teacher, create_teacher
from edgead.models.stfpm import FeaturePyramidMatching, untrained_copy

# Teacher 1 also returns stride 32, where student 2 starts.
STRIDES_1 = (*STRIDES, 32)

# Teacher 1 -> teacher 2, if they differ.
SECOND_TEACHERS = {"resnet18": "resnet50"}

# How a map weighs features: `*` is M x, `+` is (1 + M) x.
Weighing = Literal["*", "+"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the designs that the study compares.

    Attributes:
        attention: How features are weighed at strides 16 and 8; None for no attention.
        direct: Whether student 2 starts from student 1's features instead of teacher 1's.
        split: Whether student 1 learns nothing from student 2.
        deep: Whether student 2 has the first design of the study.
    """

    attention: tuple[Weighing, Weighing] | None = ("*", "+")
    direct: bool = False
    split: bool = False
    deep: bool = False


# The first is the best variant of section 4.8.
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        STANDARD_VARIANT: Variant(),
        "multiplied": Variant(attention=("*", "*")),
        "added": Variant(attention=("+", "+")),
        "no-attention": Variant(attention=None),
        "direct": Variant(direct=True),
        "direct-split": Variant(direct=True, split=True),
        "deep": Variant(deep=True),
    }
)


class TwoTeachers(nn.Module):
    """Frozen side of both pairs: four features of teacher 1, and three of teacher 2 if it is another network.

    Args:
        first: Teacher 1, with features at strides 4, 8, 16 and 32.
        second: Teacher 2, with features at strides 4, 8 and 16; None if teacher 1 teaches both pairs.
    """

    def __init__(self, first: Teacher, second: Teacher | None) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of both teachers.

        Args:
            images: (N, H, W, 3) uint8 RGB.

        Returns:
            Teacher 1's features at strides 4, 8, 16 and 32, then teacher 2's at strides 4, 8 and 16 if there is one.
        """
        features: list[Tensor] = self.first(images)
        return features if self.second is None else [*features, *self.second(images)]


class ReconstructedPyramidMatching(FeaturePyramidMatching):
    """The two pairs of RSTPM, in one of `VARIANTS`.

    Args:
        teacher: Both teachers.
        config: Configuration of the method.
    """

    variants = tuple(VARIANTS)

    def __init__(self, teacher: TwoTeachers, config: MethodConfig) -> None:
        super().__init__(teacher.first, config)
        self.teacher = teacher
        variant = VARIANTS[config.variant]
        self.direct, self.split = variant.direct, variant.split
        if self.direct:
            self.student = untrained_copy(teacher.first.name, STRIDES_1)
        if self.split:
            compared = {name for name, _ in untrained_copy(teacher.first.name).named_parameters()}
            for name, parameter in self.student.named_parameters():
                parameter.requires_grad_(name in compared)
        second = teacher.second or teacher.first
        # A ResNet's stage ends with a ReLU, like a block here.
        rectified = "resnet" in second.architecture
        self.decoder = ReconstructingStudent(
            teacher.first.channels[3],
            second.channels[: len(STRIDES)],
            variant.attention,
            rectified,
            variant.deep,
        )
        initialise(self.decoder)

    @classmethod
    def create_teacher(cls, name: str, weights: str) -> TwoTeachers:
        """Create one or two teachers. See DistillationMethod.create_teacher.

        Args:
            name: Name of teacher 1 in timm.
            weights: `package`, `hub`, `random` or a file; for two teachers two files joined by a comma.

        Returns:
            Frozen teachers.

        Raises:
            TeacherError: A teacher is unknown, its weights are not available or do not fit, or there are two teachers
                and not two files.
        """
        second = SECOND_TEACHERS.get(name.partition(".")[0])
        if second is None:
            return TwoTeachers(create_teacher(name, weights, STRIDES_1), None)
        if weights in ("package", "hub", "random"):
            weights = f"{weights},{weights}"
        files = weights.split(",")
        if len(files) != 2:
            raise TeacherError(
                f"--teacher-weights {weights} names {len(files)} files, but teacher {name!r} also needs {second!r}",
                hint="give two files joined by a comma, or hub",
            )
        return TwoTeachers(create_teacher(name, files[0], STRIDES_1), create_teacher(second, files[1]))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute three tensors of student 1, then three of student 2. See DistillationMethod.student_features."""
        ours: list[Tensor] = self.student(images)
        start = ours[3] if self.direct else teacher_features[3]
        if self.split:
            start = start.detach()
        return [*ours[:3], *self.decoder(start, _second(teacher_features))]

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Add the losses of both pairs. See DistillationMethod.loss."""
        return super().loss([*teacher_features[:3], *_second(teacher_features)], student_features)

    def head_features(
        self, teacher_features: list[Tensor], student_features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Concatenate the vectors of both pairs for every scale.

        Args:
            teacher_features: Features of TwoTeachers.
            student_features: Features of both students.

        Returns:
            Teacher side and student side, three tensors (N, C_1k + C_2k, H_k, W_k) each.
        """
        first, second = teacher_features[:3], _second(teacher_features)
        return _concatenated(first, second), _concatenated(student_features[:3], student_features[3:])


class ReconstructingStudent(nn.Module):
    """Student 2: a block for each of the strides 16, 8 and 4, and attention between them.

    Args:
        start: Number of channels at stride 32.
        channels: Number of channels of teacher 2 at strides 4, 8 and 16.
        attention: How features are weighed at strides 16 and 8; None for no attention.
        rectified: Whether the teacher's features are never negative, as in a ResNet. If so, the blocks return the
            features directly. Otherwise the blocks are as wide as the next power of two, and a 1x1 convolution follows
            each block.
        deep: Whether to use the first design, with a front block.
    """

    def __init__(
        self,
        start: int,
        channels: tuple[int, ...],
        attention: tuple[Weighing, Weighing] | None,
        rectified: bool,
        deep: bool,
    ) -> None:
        super().__init__()
        self.front = BasicBlock(start, start, Resample.KEEP) if deep else nn.Identity()
        wanted = channels[::-1]
        widths = wanted if rectified else tuple(power_of_two(c) for c in wanted)
        inputs = (start, *widths)
        self.blocks = nn.ModuleList(
            _deep_block(i, o) if deep else BasicBlock(i, o, Resample.DOUBLE)
            for i, o in zip(inputs, widths, strict=False)
        )
        self.outputs = nn.ModuleList(
            nn.Identity() if rectified else nn.Conv2d(i, o, 1) for i, o in zip(widths, wanted, strict=True)
        )
        self.attention = nn.ModuleList(
            Attention(c, weighing) for c, weighing in zip(wanted, attention or (), strict=False)
        )

    def forward(self, start: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Reconstruct teacher 2's features.

        Args:
            start: (N, start, H / 32, W / 32).
            teacher_features: Teacher 2's features, which only the attention reads.

        Returns:
            Three tensors of the shapes of teacher 2's features, fine to coarse.
        """
        features = []
        x = self.front(start)
        for number, (block, output) in enumerate(zip(self.blocks, self.outputs, strict=True)):
            x = block(x)
            features.append(output(x))
            if number < len(self.attention):
                x = self.attention[number](x, teacher_features[-1 - number])
        return features[::-1]


class Attention(nn.Module):
    """Attention: weighs features by position.

    Args:
        channels: Number of channels of the teacher's features from which the weights are computed.
        weighing: `*` for M x, `+` for (1 + M) x.
    """

    def __init__(self, channels: int, weighing: Weighing) -> None:
        super().__init__()
        self.floor = 0.0 if weighing == "*" else 1.0
        hidden = max(1, channels // 4)
        self.weights = nn.Sequential(conv_bn_relu(channels, hidden, 3), nn.Conv2d(hidden, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor, teacher: Tensor) -> Tensor:
        """Weigh x (N, C, H, W) with a map from the teacher's features (N, channels, H, W)."""
        weighed: Tensor = (self.floor + self.weights(teacher)) * x
        return weighed


def _deep_block(in_channels: int, channels: int) -> nn.Sequential:
    """Create a 3x3 transposed convolution and a block, from (N, C, H, W) to (N, C', 2 H, 2 W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        BasicBlock(channels, channels, Resample.KEEP),
    )


def _second(teacher_features: list[Tensor]) -> list[Tensor]:
    """Three features of teacher 2, or the first three of the only teacher."""
    return teacher_features[4:] or teacher_features[:3]


def _concatenated(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """Concatenate vectors of length 1, for every scale: (N, C_1k + C_2k, H_k, W_k)."""
    return [torch.cat([unit(a), unit(b)], dim=1) for a, b in zip(first, second, strict=True)]
