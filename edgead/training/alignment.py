"""Whether the parts lie the same way in every image, found out from good images alone.

Where they do, a student may rebuild the teacher's features from a code so small that a bent or misplaced part does not
fit through, and errors may be measured against what is usual at their place; where they lie any way, such a code would
not hold the alignment itself, and no place has anything usual. The question is put to the teacher's coarsest features:
how much of them does the mean image explain, position by position, that one mean feature for all positions does not?
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgead.models.base import Alignment
from edgead.models.components.head import cosine_map
from edgead.models.components.teacher import STRIDES

# Measured with EfficientNet-Lite0 at 256 px: 0.30 for transistors in a fixture, 0.75 for screws that lie at any angle.
ALIGNED_BELOW = 0.5
IMAGES = 64
# Of what a teacher gives: stride 16. Some methods ask theirs for more.
COARSEST = STRIDES.index(16)


@torch.no_grad()
def alignment_spread(teacher: nn.Module, images: Tensor, holdout: Tensor) -> float:
    """Mean cosine distance of held-out features to the mean image's, over that to one mean feature.

    images: (N, H, W, 3) and holdout: (M, H, W, 3) uint8 RGB on the teacher's device; the first 64 of each are taken.
    Near 0 for parts that always lie the same way, near 1 for parts of which a mean image says nothing.
    """
    known = torch.cat([teacher(image[None])[COARSEST] for image in images[:IMAGES]])
    unknown = torch.cat([teacher(image[None])[COARSEST] for image in holdout[:IMAGES]])
    to_image = cosine_map(unknown, known.mean(0, keepdim=True).expand_as(unknown)).mean()
    to_feature = cosine_map(unknown, known.mean((0, 2, 3), keepdim=True).expand_as(unknown)).mean()
    # Images of one colour leave nothing to explain.
    return float(to_image / to_feature.clamp_min(1e-6))


def alignment_from_spread(spread: float) -> Alignment:
    """`aligned` where the mean image explains more than half, else `unaligned`."""
    return "aligned" if spread < ALIGNED_BELOW else "unaligned"
