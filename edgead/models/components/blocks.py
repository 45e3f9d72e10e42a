"""Residual blocks of the student side, and what several methods share.

The blocks are ResNet's (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) and their mirror images
(Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022): where an encoder's block
halves the resolution with a 3x3 stride-2 convolution, a decoder's block doubles it with a 2x2 stride-2 transposed one.
"""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn


class Resample(Enum):
    """What a block does to the resolution."""

    KEEP = "keep"
    HALVE = "halve"
    DOUBLE = "double"


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU: (N, C, H, W) to (N, C', H / stride, W / stride)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; (N, C, H, W) to (N, channels, H', W')."""

    def __init__(self, in_channels: int, channels: int, resample: Resample) -> None:
        super().__init__()
        self.conv1 = _resampling_conv(in_channels, channels, resample)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(in_channels, channels, resample)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels, H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: Tensor = self.relu(out + self.shortcut(x))
        return result


class BottleneckBlock(nn.Module):
    """1x1, 3x3 at `width` channels, 1x1 and a shortcut; (N, C, H, W) to (N, channels, H', W')."""

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
        """(N, C, H, W) to (N, channels, H', W')."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu(out + self.shortcut(x))
        return result


def initialise(module: nn.Module) -> None:
    """Initialise convolutions as He et al. do, like ResNet and Reverse Distillation; transposed ones keep PyTorch's."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def power_of_two(channels: int) -> int:
    """The smallest power of two from `channels` on: how wide a student of a teacher of odd widths is."""
    return 1 << (channels - 1).bit_length()


def _resampling_conv(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample is Resample.DOUBLE:
        return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    stride = 2 if resample is Resample.HALVE else 1
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, resample: Resample) -> nn.Module:
    if resample is Resample.DOUBLE:
        conv: nn.Module = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    elif resample is Resample.HALVE or in_channels != out_channels:
        stride = 2 if resample is Resample.HALVE else 1
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    else:
        return nn.Identity()
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
