"""The order in which an epoch shows the pictures, so that a student sees each part as often as any other.

A model of several parts is bad at one that it rarely sees. So an epoch, which is as many pictures long as there are,
gives every part the same share of it: parts with more pictures show some of them, drawn anew each epoch, and
parts with fewer show theirs more than once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def epoch_order(counts: Sequence[int], generator: torch.Generator) -> Tensor:
    """Numbers of the pictures of one epoch, int64 (N,), parts mixed; of one part each picture once.

    counts: how many pictures each part has, N in all, the pictures of the first part being the first.
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
