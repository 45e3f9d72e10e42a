"""Weights of the scales in a sum, so that each scale counts alike on good parts.

The cosine maps of a fine scale are larger than those of a coarse one, also on good parts: there is more detail that a
student does not reproduce. In a plain sum this noise hides defects that only a coarse scale sees. EfficientAD (Batzner,
Heckler & König, WACV 2024, section 3.4) normalises its two maps by quantiles on good images before it adds them. Here
the largest value of each map counts, because the score is a largest value.

The weights come from training images. Held-out images set the threshold afterwards, and its bound on false alarms holds
for a model that does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgead.data.stored_images import Images
from edgead.models.base import DistillationMethod
from edgead.models.components.head import cosine_map
from edgead.types import UInt8Array

WEIGHED_IMAGES = 64
"""Number of training images that the weights are measured on."""

LEAST_SHARE = 1e-3
"""Smallest mean peak of a scale, as a share of that of the largest scale; it limits the weights."""


def spread_images(parts: Sequence[Images]) -> UInt8Array:
    """Choose about `WEIGHED_IMAGES` images, equally many of each part.

    Args:
        parts: Good images of each part, (N, H, W, 3) uint8 RGB, N >= 1.

    Returns:
        Images that are spread evenly over those of their part, part after part.
    """
    share = max(1, WEIGHED_IMAGES // len(parts))
    return np.concatenate(
        [images[np.linspace(0, len(images) - 1, min(share, len(images))).astype(int)] for images in parts]
    )


@torch.no_grad()
def scale_weights(method: DistillationMethod, images: UInt8Array) -> tuple[float, ...]:
    """Measure the weights on good images.

    The weight of a scale is inversely proportional to its mean peak: the largest value of its cosine map, averaged over
    the images. The weights have the sum K, so that scores keep their order of magnitude.

    Args:
        method: A trained method; it is put into evaluation mode.
        images: Good images, (N, H, W, 3) uint8 RGB, N >= 1.

    Returns:
        One weight for each of the K scales, each a float32 number. Empty if the method has one scale, multiplies its
        scales (a factor of the product changes no decision), or reproduces all scales exactly.
    """
    if method.head.fusion != "add":
        return ()
    device = next(method.parameters()).device
    method.eval()

    def peaks_of(image: UInt8Array) -> list[float]:
        """Largest value of each cosine map of an image (H, W, 3)."""
        sides = method.features(torch.from_numpy(image[None]).to(device))
        return [float(cosine_map(t, s).amax()) for t, s in zip(*sides, strict=True)]

    first = peaks_of(images[0])
    # Before the other images, because most methods with one scale need none of them.
    if len(first) == 1:
        return ()
    peaks = np.mean([first, *map(peaks_of, images[1:])], axis=0)
    if not 0.0 < peaks.max() < np.inf:
        return ()
    inverse = 1.0 / np.maximum(peaks, LEAST_SHARE * peaks.max())
    weights: list[float] = (len(peaks) * inverse / inverse.sum()).astype(np.float32).tolist()
    return tuple(weights)
