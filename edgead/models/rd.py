"""Reverse Distillation (RD): an encoder teaches a decoder through a narrow embedding.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022. The teacher E computes
features at strides 4, 8 and 16. The one-class bottleneck embedding (OCBE, section 3.2) brings them to stride 16 and
fuses them (MFF), then condenses them to stride 32 (OCE). The student decoder D (section 3.1) reconstructs E's features
from that embedding only. Changes by a defect do not fit through the embedding, so the two sides differ there.

For a ResNet teacher the student is the mirrored ResNet of the authors' implementation, layer for layer. For any other
teacher it is a lean student. Its widths follow from the channel counts of the teacher, and a 1x1 convolution for each
scale produces the channels of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from edgead.imaging.anomaly_map import EPSILON
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import Alignment, DistillationMethod, MethodConfig
from edgead.models.components.blocks import (
    BasicBlock,
    BottleneckBlock,
    Resample,
    SeparableBlock,
    conv_bn_relu,
    initialise,
    power_of_two,
    residual_stage,
)
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import STRIDES, Teacher
from edgead.models.hyperparameters import Hyperparameters
from edgead.types import Fusion

# The first is the default.
Loss = Literal["hard-positions", "per-position", "flattened"]
LOSSES: tuple[str, ...] = get_args(Loss)

# Loss `hard-positions`: share of the positions of a map, and weight of their mean. The mean over all has weight 1.
HARD_SHARE = 0.1
HARD_WEIGHT = 0.5

# Aligned parts: length of the usual features that are added to the student's, as a share of the student's own length.
USUAL_SHARE = 0.5

# The ResNets that the authors' implementation mirrors: name in timm -> (blocks of the embedding, blocks of the decoder
# at strides 16, 8 and 4, width of the 3x3 convolutions of a bottleneck as a fraction of its channels, None for basic
# blocks).
_MIRRORED: dict[str, tuple[int, tuple[int, int, int], float | None]] = {
    "resnet18": (2, (2, 2, 2), None),
    "resnet34": (3, (3, 4, 6), None),
    "resnet50": (3, (3, 4, 6), 1 / 4),
    "wide_resnet50_2": (3, (3, 4, 6), 1 / 2),
}


class ReverseDistillation(DistillationMethod):
    """RD for images of one size.

    There are three losses:

    - `per-position`: the mean over positions of the cosine map (equations 1 and 2 of the paper).
    - `flattened`: one cosine over the whole feature tensor of an image, as in the authors' script.
    - `hard-positions`: `per-position` plus half the mean over the tenth of the positions of each image and scale that
      the student reconstructs worst. The score of an image is the maximum of its map, and this loss trains the
      positions that decide it (hard example mining: Shrivastava et al., CVPR 2016; for students: Batzner et al.,
      "EfficientAD", WACV 2024, section 3.2).

    The alignment of the parts decides how small the embedding of the lean student is. For aligned parts the preset
    `edge` also moves the student's features towards the usual ones after the training: the mean features of the good
    images at each position. An embedding that can represent the place without its part lets a missing part through.

    Args:
        teacher: Teacher with features at strides 4, 8 and 16.
        config: Configuration of the method.
    """

    losses = LOSSES
    # Section 3.3: the maps of all scales are added, and smoothed with sigma 4; section 4.1: the training.
    fusion: ClassVar[Fusion] = "add"
    fusions: ClassVar[tuple[Fusion, ...]] = ("add", "multiply")
    presets = MappingProxyType(
        {
            "edge": Hyperparameters("hard-positions", 4.0, 50, 4, 5e-3, "one-cycle"),
            "paper": Hyperparameters("per-position", 4.0, 200, 16, 5e-3, "constant"),
        }
    )

    def __init__(self, teacher: Teacher, config: MethodConfig) -> None:
        super().__init__(teacher, config)
        if teacher.architecture in _MIRRORED:
            self.bottleneck, self.decoder = _mirrored(teacher)
        else:
            self.bottleneck, self.decoder = _lean(teacher, config.size, config.alignment)
        initialise(self.bottleneck)
        initialise(self.decoder)
        self.knows_positions = config.alignment == "aligned" and config.preset == "edge"
        if self.knows_positions:
            for channels, stride in zip(teacher.channels, STRIDES, strict=True):
                shape = (1, channels, -(-config.size.height_px // stride), -(-config.size.width_px // stride))
                self.register_buffer(f"usual_{stride}", torch.zeros(shape))

    def student_features(self, images: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Compute D(OCBE(E(x))); the student sees the images only through the teacher's features.

        Args:
            images: Not used.
            teacher_features: E(x), (N, C_k, H / s_k, W / s_k) at strides 4, 8 and 16.

        Returns:
            Tensors of the shapes of the teacher's features.
        """
        features: list[Tensor] = self.decoder(self.bottleneck(teacher_features))
        if not self.knows_positions or self.training:
            return features
        return [x + self.get_buffer(f"usual_{stride}") for x, stride in zip(features, STRIDES, strict=True)]

    def begin_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Forget the usual features of a run that this one goes on with. See DistillationMethod.begin_stage."""
        for buffer in (self.get_buffer(f"usual_{stride}") for stride in STRIDES if self.knows_positions):
            buffer.zero_()

    def finish_stage(self, batches: Iterable[tuple[Tensor, list[Tensor]]]) -> None:
        """Measure the usual features of aligned parts, with one factor for each scale.

        Args:
            batches: Images (N, H, W, 3) uint8 RGB, which are not used, and their teacher features.
        """
        # The mean of different parts is usual for none of them.
        if not self.knows_positions or self.parts > 1:
            return
        buffers = [self.get_buffer(f"usual_{stride}") for stride in STRIDES]
        sums, lengths, count = [torch.zeros_like(x) for x in buffers], [0.0] * len(buffers), 0
        for images, features in batches:
            student = self.student_features(images, features)
            count += len(images)
            for scale, (t, s) in enumerate(zip(features, student, strict=True)):
                sums[scale] += t.sum(0, keepdim=True)
                lengths[scale] += _length(s) * len(images)
        for usual, total, length in zip(buffers, sums, lengths, strict=True):
            # The sum and the mean have the same direction.
            usual += total * (USUAL_SHARE * length / count / max(_length(total), EPSILON))

    def loss(self, teacher_features: list[Tensor], student_features: list[Tensor]) -> Tensor:
        """Sum the cosine distances over the scales; `loss_kind` defines the mean.

        Args:
            teacher_features: (N, C_k, H_k, W_k) for each scale.
            student_features: Tensors of the same shapes.

        Returns:
            Scalar.
        """
        distances = []
        for teacher, student in zip(teacher_features, student_features, strict=True):
            if self.loss_kind == "flattened":
                # The whole image becomes the channels of one position.
                teacher, student = (x.flatten(1)[:, :, None, None] for x in (teacher, student))
            distance = cosine_map(teacher, student).flatten(1)
            distances.append(distance.mean())
            if self.loss_kind == "hard-positions":
                hardest = distance.topk(max(1, int(HARD_SHARE * distance.shape[1])), dim=1).values
                distances.append(HARD_WEIGHT * hardest.mean())
        return torch.stack(distances).sum()


class Bottleneck(nn.Module):
    """OCBE: multi-scale feature fusion at stride 16, then the one-class embedding at stride 32.

    Args:
        channels: Number of channels of the teacher at strides 4, 8 and 16.
        fused: Number of channels at strides 4, 8 and 16 inside the fusion.
        embedding: Module from the concatenated features at stride 16 to stride 32.
    """

    def __init__(self, channels: tuple[int, ...], fused: tuple[int, int, int], embedding: nn.Module) -> None:
        super().__init__()
        self.from_stride_4 = nn.Sequential(
            conv_bn_relu(channels[0], fused[1], 3, stride=2), conv_bn_relu(fused[1], fused[2], 3, stride=2)
        )
        self.from_stride_8 = conv_bn_relu(channels[1], fused[2], 3, stride=2)
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
        Bottleneck(teacher.channels, (fine, middle, coarse), embedding),
        Decoder(stages, [nn.Identity() for _ in stages]),
    )


def _lean(teacher: Teacher, size: ModelSize, alignment: Alignment) -> tuple[Bottleneck, Decoder]:
    """Create the student of any other teacher: as wide as the teacher, rounded up to powers of two.

    For aligned parts the embedding goes to stride 64 before the decoder starts at stride 32. With half the positions in
    each direction a code sees the whole part, so a bent or misplaced part does not fit through. This student enlarges
    by repeating pixels, and its blocks are separable. For unaligned parts the student uses transposed convolutions and
    basic blocks; without either it reconstructs screws at any angle worse (`benchmarks/results/accuracy.md`).
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
    return Bottleneck(teacher.channels, (fine, middle, coarse), embedding), Decoder(stages, outputs)


def _length(features: Tensor) -> float:
    """Mean length of the vectors of (N, C, H, W)."""
    return float(torch.linalg.vector_norm(features, dim=1).mean())


def _block(in_channels: int, channels: int, resample: Resample, bottleneck_width: float | None) -> nn.Module:
    """Create a basic block, or a bottleneck block if a width is given."""
    if bottleneck_width is None:
        return BasicBlock(in_channels, channels, resample)
    return BottleneckBlock(in_channels, channels, resample, width=int(channels * bottleneck_width))
