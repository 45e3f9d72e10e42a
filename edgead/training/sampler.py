"""The order of the images in an epoch, so that the student sees all parts equally often.

A model of several parts performs badly on a part that it rarely sees. So every part has the same share of an epoch,
and an epoch has as many images as there are in total. A part with more images shows a random subset in each epoch. A
part with fewer images shows them more than once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def epoch_order(counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw the order of the images in one epoch.

    Args:
        counts: Number of images of each part, N in total. Images are numbered part after part.
        generator: Random number generator.

    Returns:
        Numbers of the images, (N,) int64, with the parts mixed. If there is one part, each image occurs once.
    """
    total = sum(counts)
    share = -(-total // len(counts))
    drawn, first = [], 0
    for count in counts:
        passes = [torch.randperm(count, generator=generator) for _ in range(-(-share // count))]
        drawn.append(first + torch.cat(passes)[:share])
        first += count
    if len(counts) == 1:
        return drawn[0]
    return torch.cat(drawn)[torch.randperm(share * len(counts), generator=generator)[:total]]


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch of a training.

    Args:
        seed: Seed of the training.
        epoch: Number of the epoch, from 0.
    """
    return (seed << 20) + epoch
