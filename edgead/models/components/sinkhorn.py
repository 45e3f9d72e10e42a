"""Optimal transport between two sets of points: distance of two projected batches, independent of their order.

The algorithm is Cuturi, "Sinkhorn Distances", NIPS 2013, in the log domain. It is debiased as in Feydy et al.,
"Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019, so that the distance of a
set from itself is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Each step multiplies the entropy weight by COOLING, from the largest cost down to blur^2. It stays there until the
# potentials change by at most REST times the weight, or by the ROUNDING of single precision. If costs were thousands of
# times the weight, MOST_STEPS would not suffice; costs of a softmax are at most 400 times the weight.
COOLING = 0.8
REST = 1e-4
ROUNDING = 1e-6
MOST_STEPS = 1000


def sinkhorn_divergence(x: Tensor, y: Tensor, blur: float = 0.05) -> Tensor:
    """Compute OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2; differentiable.

    The cost of moving a point is half the squared distance.

    Args:
        x: (n, d) points of equal weight.
        y: (m, d) points of equal weight.
        blur: Length below which points are not distinguished; its square is the weight of the entropy.

    Returns:
        Scalar.
    """
    return (
        _half_transport(x, y, blur)
        + _half_transport(y, x, blur)
        - _half_transport(x, x, blur)
        - _half_transport(y, y, blur)
    )


def transport(x: Tensor, y: Tensor, blur: float = 0.05) -> Tensor:
    """Compute OT(x, y): the least mean cost of moving x to y, plus the weighted entropy of the plan.

    Args:
        x: (n, d) points of equal weight.
        y: (m, d) points of equal weight.
        blur: Square root of the weight of the entropy.

    Returns:
        Scalar.
    """
    return _half_transport(x, y, blur) + _half_transport(y, x, blur)


def _half_transport(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """Mean potential of x. At the optimum its gradient is the gradient of the transport with respect to x."""
    cost = torch.cdist(x, y.detach(), compute_mode="donot_use_mm_for_euclid_dist").square() / 2.0
    epsilon = blur**2
    other = _potentials(cost.detach(), epsilon)[1]
    return _soft_minimum(cost - other[None], epsilon).mean()


def _potentials(cost: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Dual potentials (n,) and (m,) of a cost (n, m); each step takes the mean of the old and the new potential."""
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    largest = max(float(cost.max()), epsilon)
    cooling = math.ceil(math.log(epsilon / largest) / math.log(COOLING))
    for step in range(MOST_STEPS):
        now = max(epsilon, largest * COOLING**step)
        new_f, new_g = _soft_minimum(cost - g[None], now), _soft_minimum(cost.T - f[None], now)
        change = max(float((new_f - f).abs().max()), float((new_g - g).abs().max()))
        f, g = (f + new_f) / 2.0, (g + new_g) / 2.0
        if step >= cooling and change <= max(REST * epsilon, ROUNDING * largest):
            break
    return f, g


def _soft_minimum(values: Tensor, epsilon: float) -> Tensor:
    """-epsilon log mean exp(-values / epsilon) along rows: (n, m) to (n,)."""
    return -epsilon * (torch.logsumexp(-values / epsilon, dim=1) - math.log(values.shape[1]))
