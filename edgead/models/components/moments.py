"""Mean and covariance of feature vectors from one pass through their batches.

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
    """Sums of vectors and of their outer products.

    Args:
        channels: Number of components of a vector, C.
        device: Device of the features.

    Attributes:
        count: Number of vectors, N x H x W of all batches.
        total: Sum of the vectors, (C,) float64.
        products: Sum of the outer products, (C, C) float64.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.total = torch.zeros(channels, dtype=torch.float64, device=device)
        self.products = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add the vectors of a batch.

        Args:
            features: (N, C, H, W) float.
        """
        vectors = features.double().transpose(0, 1).flatten(1)
        self.count += vectors.shape[1]
        self.total += vectors.sum(1)
        self.products += vectors @ vectors.T

    @classmethod
    def joined(cls, parts: Iterable[Moments]) -> Moments:
        """Add up the moments of several sets of vectors, which must have the same number of components.

        Args:
            parts: Moments of each set, at least one.
        """
        first, *others = parts
        found = cls(len(first.total), first.total.device)
        for part in (first, *others):
            found.count += part.count
            found.total += part.total
            found.products += part.products
        return found

    def mean(self) -> Tensor:
        """Return the mean vector, (C,) float64."""
        return self.total / self.count

    def covariance(self) -> Tensor:
        """Return the covariance divided by the number of vectors, (C, C) float64."""
        mean = self.mean()
        return self.products / self.count - mean[:, None] * mean
