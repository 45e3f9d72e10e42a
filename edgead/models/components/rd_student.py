"""The student of Reverse Distillation: the one-class bottleneck embedding (OCBE) and the decoder.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, sections 3.1 and 3.2. For a
ResNet teacher the student is the mirrored ResNet of the authors' implementation, layer for layer. For any other teacher
it is a lean student. Its widths follow from the channel counts of the teacher, and a 1x1 convolution for each scale
produces the channels of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from edgead.imaging.preprocess import ModelSize
from edgead.models.base import Alignment
from edgead.models.components.blocks import (
    BasicBlock,
    BottleneckBlock,
    Resample,
    SeparableBlock,
    conv_bn_relu,
    power_of_two,
    residual_stage,
    separable_relu,
)
from edgead.models.components.teacher import Teacher

# The ResNets that the authors' implementation mirrors: name in timm -> (blocks of the embedding, blocks of the decoder
# at strides 16, 8 and 4, width of the 3x3 convolutions of a bottleneck as a fraction of its channels, None for basic
# blocks).
_MIRRORED: dict[str, tuple[int, tuple[int, int, int], float | None]] = {
    "resnet18": (2, (2, 2, 2), None),
    "resnet34": (3, (3, 4, 6), None),
    "resnet50": (3, (3, 4, 6), 1 / 4),
    "wide_resnet50_2": (3, (3, 4, 6), 1 / 2),
}


# Creates a module that halves the resolution, from its input and output channels.
Halving = Callable[[int, int], nn.Module]


class Bottleneck(nn.Module):
    """OCBE: multi-scale feature fusion at stride 16, then the one-class embedding at stride 32.

    Args:
        channels: Number of channels of the teacher at strides 4, 8 and 16.
        fused: Number of channels at strides 4, 8 and 16 inside the fusion.
        embedding: Module from the concatenated features at stride 16 to stride 32.
        halve: Creates the modules of the fusion.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        fused: tuple[int, int, int],
        embedding: nn.Module,
        halve: Halving,
    ) -> None:
        super().__init__()
        self.from_stride_4 = nn.Sequential(halve(channels[0], fused[1]), halve(fused[1], fused[2]))
        self.from_stride_8 = halve(channels[1], fused[2])
        self.embedding = embedding

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map three tensors (N, C_k, H / s_k, W / s_k) to one (N, C, H / 32, W / 32)."""
        fused = (self.from_stride_4(features[0]), self.from_stride_8(features[1]), features[2])
        return self.embedding(torch.cat(fused, dim=1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Residual stages that double the resolution, from stride 32 to 16, 8 and 4.

    Args:
        stages: One module for each scale, coarse to fine.
        outputs: One module for each scale, coarse to fine, from the channels of the stage to those of the teacher.
    """

    def __init__(self, stages: list[nn.Module], outputs: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.outputs = nn.ModuleList(outputs)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """Reconstruct the teacher's features.

        Args:
            embedding: (N, C, H / 32, W / 32).

        Returns:
            Features at strides 4, 8 and 16, fine to coarse like the teacher's.
        """
        features, x = [], embedding
        for stage, output in zip(self.stages, self.outputs, strict=True):
            x = stage(x)
            features.append(output(x))
        return features[::-1]


def create_student(teacher: Teacher, size: ModelSize, alignment: Alignment) -> tuple[Bottleneck, Decoder]:
    """Create the embedding and the decoder for a teacher.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        size: Size of the images.
        alignment: Whether the parts lie alike; only the lean student depends on it.

    Returns:
        The embedding, from the teacher's features, and the decoder, from the embedding.
    """
    if teacher.architecture in _MIRRORED:
        return _mirrored(teacher)
    return _lean(teacher, size, alignment)


def mirrored_embedding(coarse: int, blocks: int, width: float | None) -> nn.Sequential:
    """Create the embedding of the student of a ResNet, a layer4.

    Args:
        coarse: Number of channels of the teacher at stride 16.
        blocks: Number of residual blocks.
        width: Width of the 3x3 convolutions of a bottleneck as a fraction of its channels; None for basic blocks.

    Returns:
        Module from (N, 3 coarse, H, W) to (N, 2 coarse, H / 2, W / 2).
    """
    block = partial(_block, bottleneck_width=width)
    return residual_stage(block, 3 * coarse, 2 * coarse, blocks, Resample.HALVE)


def _mirrored(teacher: Teacher) -> tuple[Bottleneck, Decoder]:
    """Create the authors' student of a ResNet: the embedding is a layer4, the decoder mirrors layer3 to layer1."""
    embedding_blocks, decoder_blocks, bottleneck_width = _MIRRORED[teacher.architecture]
    fine, middle, coarse = teacher.channels
    embedding = mirrored_embedding(coarse, embedding_blocks, bottleneck_width)
    stages: list[nn.Module] = []
    in_channels = 2 * coarse
    for channels, blocks in zip((coarse, middle, fine), decoder_blocks, strict=True):
        block = partial(_block, bottleneck_width=bottleneck_width)
        stages.append(residual_stage(block, in_channels, channels, blocks, Resample.DOUBLE))
        in_channels = channels
    return (
        Bottleneck(teacher.channels, (fine, middle, coarse), embedding, _halving_conv),
        Decoder(stages, [nn.Identity() for _ in stages]),
    )


def _lean(teacher: Teacher, size: ModelSize, alignment: Alignment) -> tuple[Bottleneck, Decoder]:
    """Create the student of any other teacher: as wide as the teacher, rounded up to powers of two.

    For aligned parts the embedding goes to stride 64 before the decoder starts at stride 32. With half the positions in
    each direction a code sees the whole part, so a bent or misplaced part does not fit through. This student enlarges
    by repeating pixels, and its convolutions are separable. For unaligned parts the student uses transposed
    convolutions and basic blocks; without either it reconstructs screws at any angle worse
    (`benchmarks/results/accuracy.md`).
    """
    fine, middle, coarse = (power_of_two(channels) for channels in teacher.channels)
    embedded = 2 * coarse
    block = SeparableBlock if alignment == "aligned" else BasicBlock

    def enlarge(in_channels: int, channels: int, stride: int) -> nn.Module:
        return nn.Sequential(
            conv_bn_relu(in_channels, channels, 1),
            nn.Upsample((-(-size.height_px // stride), -(-size.width_px // stride)), mode="nearest"),
            block(channels, channels, Resample.KEEP),
        )

    embedding = residual_stage(block, 2 * coarse + teacher.channels[2], embedded, 2, Resample.HALVE)
    if alignment == "aligned":
        embedding.append(block(embedded, embedded, Resample.HALVE))
        embedding.append(enlarge(embedded, embedded, 32))
    widths, stages = (coarse, middle, fine), list[nn.Module]()
    for in_channels, channels, stride in zip((embedded, coarse, middle), widths, (16, 8, 4), strict=True):
        if alignment == "aligned":
            stages.append(enlarge(in_channels, channels, stride))
        else:
            stages.append(residual_stage(block, in_channels, channels, 2, Resample.DOUBLE))
    sizes = zip(widths, teacher.channels[::-1], strict=True)
    outputs: list[nn.Module] = [nn.Conv2d(width, channels, 1) for width, channels in sizes]
    halve = separable_relu if alignment == "aligned" else _halving_conv
    return Bottleneck(teacher.channels, (fine, middle, coarse), embedding, halve), Decoder(stages, outputs)


def _halving_conv(in_channels: int, out_channels: int) -> nn.Module:
    """Create a 3x3 convolution of stride 2, and a ReLU."""
    return conv_bn_relu(in_channels, out_channels, 3, stride=2)


def _block(in_channels: int, channels: int, resample: Resample, bottleneck_width: float | None) -> nn.Module:
    """Create a basic block, or a bottleneck block if a width is given."""
    if bottleneck_width is None:
        return BasicBlock(in_channels, channels, resample)
    return BottleneckBlock(in_channels, channels, resample, width=int(channels * bottleneck_width))
