"""The order in which an epoch shows the images, so that a student sees each part as often as any other.

A model of several parts is bad at one that it rarely sees. So an epoch, which is as many images long as there are,
gives every part the same share of it: parts with more images show some of them, drawn anew each epoch, and
parts with fewer show theirs more than once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def epoch_order(counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """Numbers of the images of one epoch, int64 (N,), parts mixed; of one part each image once.

    counts: how many images each part has, N in all, the images of the first part being the first.
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
