"""Residual blocks of the student side, and helpers that several methods share.

The blocks are ResNet's (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) and their mirror images
(Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022), and basic blocks of
depthwise separable convolutions. An encoder block halves the resolution with a 3x3 stride-2 convolution; a decoder
block doubles it with a 2x2 stride-2 transposed convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from torch import Tensor, nn


class Resample(Enum):
    """Change of the resolution in a block."""

    KEEP = "keep"
    HALVE = "halve"
    DOUBLE = "double"


# Creates a block from its input channels, its output channels and its change of the resolution.
BlockFactory = Callable[[int, int, Resample], nn.Module]


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Create a convolution without bias, a batch normalisation and a ReLU.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Height and width of the kernel; padding keeps the size at stride 1.
        stride: Stride of the convolution.

    Returns:
        Module from (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Create a depthwise separable convolution that halves the resolution, and a ReLU.

    Without a ReLU between its two convolutions, as in `SeparableBlock`.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.

    Returns:
        Module from (N, in_channels, H, W) to (N, out_channels, H / 2, W / 2).
    """
    return nn.Sequential(_separable(in_channels, out_channels, Resample.HALVE), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Basic block: two 3x3 convolutions and a shortcut.

    Args:
        in_channels: Number of input channels.
        channels: Number of output channels.
        resample: Change of the resolution, made by the first convolution and the shortcut.
    """

    def __init__(self, in_channels: int, channels: int, resample: Resample) -> None:
        super().__init__()
        self.conv1 = _resampling_conv(in_channels, channels, resample)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, resample)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: Tensor = self.relu(out + self.shortcut(x))
        return result


class SeparableBlock(nn.Module):
    """Basic block of depthwise separable convolutions, with a ninth of the multiplications.

    Each 3x3 convolution is a depthwise one and a 1x1 one (Howard et al., "MobileNets", 2017), without a ReLU between
    them (Chollet, "Xception", CVPR 2017).

    Args:
        in_channels: Number of input channels.
        channels: Number of output channels.
        resample: Change of the resolution, made by the first depthwise convolution and the shortcut: keep or halve.
    """

    def __init__(self, in_channels: int, channels: int, resample: Resample) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _separable(in_channels, channels, resample),
            nn.ReLU(inplace=True),
            _separable(channels, channels, Resample.KEEP),
        )
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, resample)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        result: Tensor = self.relu(self.convolutions(x) + self.shortcut(x))
        return result


class BottleneckBlock(nn.Module):
    """Bottleneck block: 1x1, 3x3 and 1x1 convolutions and a shortcut.

    Args:
        in_channels: Number of input channels.
        channels: Number of output channels.
        resample: Change of the resolution, made by the 3x3 convolution and the shortcut.
        width: Number of channels of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, resample: Resample, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _resampling_conv(width, width, resample)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, resample)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu(out + self.shortcut(x))
        return result


def residual_stage(
    block: BlockFactory, in_channels: int, channels: int, blocks: int, resample: Resample
) -> nn.Sequential:
    """Create a residual stage; its first block changes channels and resolution.

    Args:
        block: Creates a block.
        in_channels: Number of input channels.
        channels: Number of output channels.
        blocks: Number of blocks.
        resample: Change of the resolution, made by the first block.

    Returns:
        Module from (N, in_channels, H, W) to (N, channels, H', W').
    """
    first = block(in_channels, channels, resample)
    return nn.Sequential(first, *(block(channels, channels, Resample.KEEP) for _ in range(blocks - 1)))


def initialise(module: nn.Module) -> None:
    """Initialise convolutions after He et al., as ResNet and Reverse Distillation do.

    Transposed convolutions keep PyTorch's initialisation.

    Args:
        module: Module to initialise in place, with all its submodules.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def power_of_two(channels: int) -> int:
    """Round a number of channels up to a power of two: the width of a student of a teacher with odd widths.

    Args:
        channels: Number of channels, at least 1.

    Returns:
        Smallest power of two that is not less than `channels`.
    """
    return 1 << (channels - 1).bit_length()


def _resampling_conv(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    """Create a 3x3 convolution, or a 2x2 transposed one to double the resolution."""
    if resample is Resample.DOUBLE:
        return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    stride = 2 if resample is Resample.HALVE else 1
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _separable(in_channels: int, out_channels: int, resample: Resample) -> nn.Sequential:
    """Create a depthwise 3x3 convolution and a 1x1 convolution, each with a batch normalisation."""
    stride = 2 if resample is Resample.HALVE else 1
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _shortcut(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    """Create the shortcut of a block; it has weights only if the block changes channels or resolution."""
    if resample is Resample.DOUBLE:
        conv: nn.Module = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    elif resample is Resample.HALVE or in_channels != out_channels:
        stride = 2 if resample is Resample.HALVE else 1
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    else:
        return nn.Identity()
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
