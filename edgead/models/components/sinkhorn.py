"""Optimal transport between two sets of points: how far a projected batch is from another, whatever the order.

Cuturi, "Sinkhorn Distances", NIPS 2013, in the log domain; debiased as in Feydy et al., "Interpolating between Optimal
Transport and MMD using Sinkhorn Divergences", AISTATS 2019, so that a set is at distance 0 from itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The entropy is brought down by this factor a step, from the largest cost to what is asked for, and held there until
# the potentials rest: to this share of it, or to what single precision tells apart. Costs thousands of times the
# entropy would take more steps than these; a softmax's are at most 400 times it.
COOLING = 0.8
REST = 1e-4
ROUNDING = 1e-6
MOST_STEPS = 1000


def sinkhorn_divergence(x: Tensor, y: Tensor, blur: float = 0.05) -> Tensor:
    """OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2: (n, d) and (m, d) points of equal weight to a scalar, differentiable.

    Moving a point by a distance costs half its square. blur: length below which points are not told apart; the weight
    of the entropy is its square.
    """
    return (
        _half_transport(x, y, blur)
        + _half_transport(y, x, blur)
        - _half_transport(x, x, blur)
        - _half_transport(y, y, blur)
    )


def transport(x: Tensor, y: Tensor, blur: float = 0.05) -> Tensor:
    """OT(x, y): the least mean cost of moving x to y, plus the entropy's weight times that of the plan: a scalar."""
    return _half_transport(x, y, blur) + _half_transport(y, x, blur)


def _half_transport(x: Tensor, y: Tensor, blur: float) -> Tensor:
    """The mean over x of its potential, whose gradient is the transport's by x: at the optimum the rest has none."""
    cost = torch.cdist(x, y.detach(), compute_mode="donot_use_mm_for_euclid_dist").square() / 2.0
    epsilon = blur**2
    other = _potentials(cost.detach(), epsilon)[1]
    return _soft_minimum(cost - other[None], epsilon).mean()


def _potentials(cost: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The dual potentials of both sides for a cost (n, m), by steps that are the mean of old and new."""
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
