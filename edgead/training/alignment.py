"""Decide from good images alone whether the parts lie the same way in every image.

If the parts are aligned, a student may rebuild the teacher's features from a small code that cannot represent a bent or
misplaced part, and errors may be measured relative to the usual error of each position. If the parts lie in any
position or rotation, a small code could not even represent their position, and no position has a usual error. The
decision uses the teacher's coarsest features: how much of them does the mean image explain, position by position,
beyond one mean feature for all positions?
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgead.models.base import Alignment
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import STRIDES
from edgead.training.images import PartImages

_log = logging.getLogger(__name__)

# Measured with EfficientNet-Lite0 at 256 px: 0.30 for transistors in a fixture, 0.75 for screws that lie at any angle.
ALIGNED_BELOW = 0.5
IMAGES = 64
# Index of the stride-16 features. The teachers of some methods give coarser features too.
COARSEST = STRIDES.index(16)


@torch.no_grad()
def alignment_spread(teacher: nn.Module, images: Tensor, holdout: Tensor) -> float:
    """Measure how much of the held-out features the mean image leaves unexplained.

    The spread is a ratio of two mean cosine distances of the held-out features: the distance to the mean image's
    features, divided by the distance to one mean feature for all positions.

    Args:
        teacher: The teacher; from (1, H, W, 3) uint8 RGB to feature tensors of increasing stride.
        images: Good images, (N, H, W, 3) uint8 RGB, on the teacher's device. The first 64 are used.
        holdout: Other good images, (M, H, W, 3) uint8 RGB, on the teacher's device. The first 64 are used.

    Returns:
        The spread: near 0 for parts that always lie the same way, near 1 for parts that the mean image does not
        describe.
    """
    known = torch.cat([teacher(image[None])[COARSEST] for image in images[:IMAGES]])
    unknown = torch.cat([teacher(image[None])[COARSEST] for image in holdout[:IMAGES]])
    to_image = cosine_map(unknown, known.mean(0, keepdim=True).expand_as(unknown)).mean()
    to_feature = cosine_map(unknown, known.mean((0, 2, 3), keepdim=True).expand_as(unknown)).mean()
    # Images of one colour have no distances, and 0 / 0 would be NaN.
    return float(to_image / to_feature.clamp_min(1e-6))


def alignment_from_spread(spread: float) -> Alignment:
    """Return "aligned" if the mean image explains more than half of the features, else "unaligned".

    Args:
        spread: Result of `alignment_spread`.
    """
    return "aligned" if spread < ALIGNED_BELOW else "unaligned"


def found_alignment(teacher: nn.Module, parts: Mapping[str, PartImages]) -> Alignment:
    """Determine the alignment of the parts from the good images.

    One student serves all parts, so it must be able to rebuild any position if one of the parts is unaligned.

    Args:
        teacher: Frozen teacher.
        parts: Good images, by name of the part.

    Returns:
        The alignment, which is logged with its measure.
    """
    spreads = {
        name: alignment_spread(
            teacher,
            torch.from_numpy(part.trained.images[:IMAGES]),
            torch.from_numpy(part.held_out.images[:IMAGES]),
        )
        for name, part in parts.items()
    }
    # The least aligned part decides for all.
    alignment = alignment_from_spread(max(spreads.values()))
    found = ", ".join(
        f"{name} {spread:.2f}" if len(parts) > 1 else f"{spread:.2f}" for name, spread in spreads.items()
    )
    _log.info(
        "the parts are %s (spread %s, aligned below %s); --alignment overrides this",
        alignment,
        found,
        ALIGNED_BELOW,
    )
    return alignment
