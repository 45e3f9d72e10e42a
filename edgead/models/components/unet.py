"""A small U-Net: a network that looks at maps fine and coarse at once, and gives one map of the same size.

Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015: a path that
halves the resolution, a path that doubles it again, and at each resolution what the first path gave is laid beside what
the second one takes. With padding, so that sizes stay, with batch normalisation, and halved by 3x3 convolutions of
stride 2 instead of a maximum: all of it is what an engine computes in any precision.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgead.models.components.blocks import conv_bn_relu, initialise


class UNet(nn.Module):
    """Two 3x3 convolutions at each resolution on the way down and up, and a 1x1 convolution at the end, `output`.

    in_channels: of what it takes. widths: channels at each resolution, from fine to coarse.
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
        """(N, C, H, W) to (N, 1, H, W), with H and W multiples of 2 for every resolution below the first."""
        passed = [self.first(x)]
        for down in self.down:
            passed.append(down(passed[-1]))
        x = passed.pop()
        for enlarge, up in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            x = up(torch.cat([enlarge(x), passed.pop()], dim=1))
        logits: Tensor = self.output(x)
        return logits


def _double(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(in_channels, channels, 3, stride), conv_bn_relu(channels, channels, 3))
