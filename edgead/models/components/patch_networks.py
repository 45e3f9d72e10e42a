"""Patch networks: convolutions that describe the patch of 17, 33 or 65 pixels around each position of an image.

A patch network has one output position for `stride` pixels in each direction. The output there depends only on a square
of 4 stride + 1 pixels. The layers are a 5x5 convolution of stride 2 (5 pixels), a 3x3 convolution of stride 2 for each
further halving (9, 17, 33), a 3x3 convolution of stride 1 (17, 33, 65 at strides 4, 8, 16) and a 1x1 convolution.
Patches are centred on the first pixel of their cell; beyond the border a layer sees zeros. There are leaky rectifiers
between the layers and no batch normalisation, as in published re-implementations of Bergmann et al., "Uninformed
Students", CVPR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SLOPE = 5e-3


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """Size of a patch network.

    Attributes:
        widths: Number of channels at strides 2, 4, 8 and 16.
        descriptor: Number of output channels.
    """

    widths: tuple[int, int, int, int]
    descriptor: int


def patch_network(stride: int, spec: PatchSpec) -> nn.Sequential:
    """Create an untrained patch network with a receptive field of 4 stride + 1 pixels.

    Args:
        stride: 4, 8 or 16; height and width of the images are multiples of it.
        spec: Size of the network.

    Returns:
        Module from (N, 3, H, W) to (N, descriptor, H / stride, W / stride).
    """
    widths = spec.widths[: int(math.log2(stride))]
    layers: list[nn.Module] = []
    channels, kernel_size = 3, 5
    for width in widths:
        layers += [nn.Conv2d(channels, width, kernel_size, 2, kernel_size // 2), _rectifier()]
        channels, kernel_size = width, 3
    layers += [nn.Conv2d(channels, channels, 3, 1, 1), _rectifier(), nn.Conv2d(channels, spec.descriptor, 1)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def pixels_of(images: Tensor) -> Tensor:
    """Convert images to the input of patch networks.

    Args:
        images: (N, H, W, 3) uint8 RGB.

    Returns:
        (N, 3, H, W) float32 from -1 to 1.
    """
    return (images.float().permute(0, 3, 1, 2) - 127.5) / 127.5


def mean_and_std(batches: Iterable[list[Tensor]], by_position: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Compute mean and population standard deviation over images and positions, or at each position.

    Args:
        batches: Batches of K tensors (N, C_k, H_k, W_k).
        by_position: Whether each position has its own mean and standard deviation.

    Returns:
        K pairs (C_k, 1, 1) float64, or (C_k, H_k, W_k) float64 by position.
    """
    sums: list[Tensor] = []
    for batch in batches:
        # Count, sum and sum of squares.
        found = [torch.stack([torch.ones_like(x), x, x * x]).sum(1) for x in map(Tensor.double, batch)]
        if not by_position:
            found = [x.sum((2, 3), keepdim=True) for x in found]
        sums = [total + new for total, new in zip(sums, found, strict=True)] if sums else found
    means = [total[1:] / total[:1] for total in sums]
    return [(mean, (square - mean * mean).clamp_min(0.0).sqrt()) for mean, square in means]


def _rectifier() -> nn.Module:
    """Create a leaky rectifier."""
    return nn.LeakyReLU(SLOPE, inplace=True)
