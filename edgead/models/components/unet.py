"""A small U-Net: a network that reads maps at fine and coarse resolutions and returns one map of the same size.

Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015. One path
halves the resolution and a second path doubles it again. At each resolution the output of the first path is
concatenated with the input of the second. Differences from the paper: padding, so that sizes stay; batch normalisation;
3x3 convolutions of stride 2 in place of maximum pooling. An engine can compute all of these layers in any precision.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgead.models.components.blocks import conv_bn_relu, initialise


class UNet(nn.Module):
    """Two 3x3 convolutions at each resolution on both paths, and the 1x1 convolution `output` at the end.

    Args:
        in_channels: Number of input channels.
        widths: Number of channels at each resolution, from fine to coarse.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = _double(in_channels, widths[0], 1)
        self.down = nn.ModuleList(_double(fine, coarse, 2) for fine, coarse in pairwise(widths))
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(_double(2 * fine, fine, 1) for fine in widths[:-1])
        self.output = nn.Conv2d(widths[0], 1, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of each position.

        Args:
            x: (N, in_channels, H, W); H and W are multiples of 2^(number of widths - 1).

        Returns:
            (N, 1, H, W).
        """
        passed = [self.first(x)]
        for down in self.down:
            passed.append(down(passed[-1]))
        x = passed.pop()
        for enlarge, up in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            x = up(torch.cat([enlarge(x), passed.pop()], dim=1))
        logits: Tensor = self.output(x)
        return logits


def _double(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Create two 3x3 convolutions; the first one has the stride."""
    return nn.Sequential(conv_bn_relu(in_channels, channels, 3, stride), conv_bn_relu(channels, channels, 3))
