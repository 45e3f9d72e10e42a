"""Mean at each position and covariance of feature vectors from one pass through their batches.

The sums of two sets of images add up to the sums of both, so the moments without a fold of the images cost no further
pass.

The sums are float64, so their rounding is far below the rounding of the float32 features. Batches of another size give
the same mean and covariance, except for this rounding. The memory does not depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Moments:
    """Sums of features at each position, and of the outer products of their vectors over all positions.

    Args:
        shape: (C, H, W) of the features of an image.
        device: Device of the features.

    Attributes:
        count: Number of images.
        total: Sum of the features of all images, (C, H, W) float64.
        products: Sum of the outer products of the vectors of all images and positions, (C, C) float64.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self.count = 0
        self.total = torch.zeros(shape, dtype=torch.float64, device=device)
        self.products = torch.zeros(shape[0], shape[0], dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add the features of a batch.

        Args:
            features: (N, C, H, W) float.
        """
        exact = features.double()
        vectors = exact.transpose(0, 1).flatten(1)
        self.count += len(features)
        self.total += exact.sum(0)
        self.products += vectors @ vectors.T

    @classmethod
    def joined(cls, parts: Iterable[Moments]) -> Moments:
        """Add up the moments of several sets of images, whose features must have the same shape.

        Args:
            parts: Moments of each set, at least one.
        """
        first, *others = parts
        channels, height, width = first.total.shape
        found = cls((channels, height, width), first.total.device)
        for part in (first, *others):
            found.count += part.count
            found.total += part.total
            found.products += part.products
        return found

    def mean(self) -> Tensor:
        """Return the mean feature of each position, (C, H, W) float64."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """Return the covariance of the differences from `mean`, divided by their number, (C, C) float64."""
        mean = self.mean().flatten(1)
        positions = mean.shape[1]
        return (self.products / self.count - mean @ mean.T) / positions
