"""Descriptors of patches: training losses, targets of the distillation, and the lift to a sphere.

`edgead.models.uninformed_students` has the equations of the descriptors y, the mean m of the students, e and v, and
their sources.

The head computes only cosine maps, so it gets vectors lifted to a sphere (the inverse stereographic projection).
E and V are the units of e and v: std e and std v, or the means at each position. With

    x = (y, 0) / (r sqrt(E))     z = (m / sqrt(E), sqrt(v / V)) / r     lift(x) = (2 x, |x|^2 - 1)

half the squared chord between the lifted vectors, which is one minus their cosine, is

    2 / r^2  (e / E + v / V)  /  ((1 + |x|^2) (1 + |z|^2))

lift(x) depends only on the teacher, lift(z) only on the students. The sum over sizes is the published map times
6 / r^2, except for two differences: a constant of mean e and mean v, which the threshold includes, and the factors in
the denominator. r is so large that |x|^2 is at most 1/256 in the mean over the good images (at each position if E is by
position), so the factors are near 1 on good parts. The n components of x and of z are cut at 1 / sqrt(n). The cut is
beyond 15 times the root mean square of a descriptor's components (of those at the same position if E is by position),
and beyond 250 V, so no factor is larger than 2. Where nothing is cut, two values of one size of patches have the order
of e / E + v / V if their ratio is larger than the ratio of the factors, so always if one is four times the other. Half
precision rounds x and z relative to their size, so small values lose no more accuracy than large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod

# Share of the elements that the hard loss is the mean of.
HARD_SHARE = 1e-3


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Compute the squared distance of vectors, the mean over images and positions.

    Args:
        one: (N, C, H, W).
        other: (N, C, H, W).

    Returns:
        Scalar.
    """
    return one.shape[1] * nn.functional.mse_loss(one, other)


def compactness(descriptors: Tensor) -> Tensor:
    """Compute L_c: the sum of the squared correlations of each component with each other component.

    Args:
        descriptors: (N, C, H, W).

    Returns:
        Scalar.
    """
    # With an epsilon of the usual size small components would evade this loss.
    standard = nn.functional.batch_norm(descriptors, None, None, training=True, eps=1e-10)
    vectors = standard.transpose(0, 1).flatten(1)
    correlations = (vectors / vectors.shape[1]) @ vectors.T
    # A component's correlation with itself is 1.
    return correlations.square().sum() - correlations.diagonal().square().sum()


def hard_mean(errors: Tensor) -> Tensor:
    """Compute EfficientAD's hard loss: the mean of the largest thousandth of the elements, at least one.

    Args:
        errors: Of any shape.

    Returns:
        Scalar.
    """
    count = max(1, round(HARD_SHARE * errors.numel()))
    return errors.flatten().topk(count, sorted=False).values.mean()


def pretrained_descriptors(features: list[Tensor], size: torch.Size, count: int | None = None) -> Tensor:
    """Compute P(p): join features at one size and normalise each channel to mean 0 and standard deviation 1.

    Args:
        features: Tensors (N, C_k, H_k, W_k).
        size: Height and width of the result.
        count: Number of channels to return, at most the sum of C_k: neighbouring channels are averaged after their
            normalisation, and the means are normalised. All channels if None.

    Returns:
        (N, sum of C_k or count, *size).
    """
    joined = torch.cat([nn.functional.adaptive_avg_pool2d(x, (size[0], size[1])) for x in features], dim=1)
    standard = nn.functional.batch_norm(joined, None, None, training=True)
    if count is None:
        return standard
    # Channels last, where this pooling is along rows.
    means = nn.functional.adaptive_avg_pool2d(standard.permute(0, 2, 3, 1), (size[1], count))
    return nn.functional.batch_norm(means.permute(0, 3, 1, 2), None, None, training=True)


def half_disturbed(
    method: DistillationMethod, images: Tensor, features: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Replace the second half of a batch by pseudo-anomalous images in training mode; a single image counts twice.

    In evaluation mode nothing is replaced, because the teacher would have to see the same disturbed images each time.

    Args:
        method: The method; it computes the features of the disturbed images.
        images: (N, H, W, 3) uint8 RGB.
        features: Teacher features of the images.

    Returns:
        The unchanged images and then the disturbed ones, and their teacher features.
    """
    if not method.training:
        return images, features
    count = len(images)
    kept, changed = (slice(count // 2), slice(count // 2, count)) if count > 1 else (slice(1), slice(1))
    disturbed, _ = method.disturbed_batch(images[changed])
    both = zip(features, method.teacher_features(disturbed), strict=True)
    return torch.cat([images[kept], disturbed]), [torch.cat([given[kept], new]) for given, new in both]


def lifted(x: Tensor) -> Tensor:
    """Lift vectors to a sphere: (2 x, |x|^2 - 1), of length |x|^2 + 1.

    Components are cut at 1 / sqrt(C), because vectors longer than 1 would come near the pole, and so near to each
    other.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, C + 1, H, W).
    """
    limit = x.shape[1] ** -0.5
    x = x.clamp(-limit, limit)
    return torch.cat([2.0 * x, (x * x).sum(1, keepdim=True) - 1.0], dim=1)
