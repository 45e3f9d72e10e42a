"""The Sinkhorn divergence against the linear programme that it smooths, and against plain arithmetic."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from edgead.models.components.sinkhorn import sinkhorn_divergence, transport


def points(seed: int, count: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 3, dtype=torch.float64, generator=generator)


def cost_matrix(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    difference = x.numpy()[:, None] - y.numpy()[None]
    return 0.5 * (difference**2).sum(2)


def least_cost(x: torch.Tensor, y: torch.Tensor) -> float:
    """Optimal transport without entropy, as a linear programme."""
    n, m = len(x), len(y)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = linprog(cost_matrix(x, y).ravel(), A_eq=np.vstack([rows, columns]), b_eq=weights)
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 7), (1, 6)])
def test_with_little_blur_it_is_the_linear_programme(n, m):
    x, y = points(1, n), points(2, m)
    got = float(transport(x, y, blur=0.1))
    # The entropy of a plan, times its weight, is never negative and at most log n + log m.
    assert least_cost(x, y) - 1e-6 <= got <= least_cost(x, y) + 0.1**2 * math.log(n * m) + 1e-6


@pytest.mark.parametrize("blur", [0.05, 0.3, 1.0])
def test_it_is_what_very_many_plain_steps_give(blur):
    x, y = points(3, 5, 0.3), points(4, 6, 0.3)

    def entropic(a, b):
        cost, epsilon = cost_matrix(a, b), blur**2
        kernel = np.exp(-cost / epsilon)
        u, v = np.ones(len(a)), np.ones(len(b))
        for _ in range(20_000):
            u = (1 / len(a)) / (kernel @ v)
            v = (1 / len(b)) / (kernel.T @ u)
        plan = u[:, None] * kernel * v[None]
        relative = np.log(plan * len(a) * len(b))
        return float((plan * cost).sum() + epsilon * (plan * relative).sum())

    expected = entropic(x, y) - (entropic(x, x) + entropic(y, y)) / 2
    assert float(sinkhorn_divergence(x, y, blur)) == pytest.approx(expected, rel=1e-3)


def test_a_shuffled_set_is_at_no_distance_and_has_no_gradient():
    x = points(5, 6, 0.1).requires_grad_()
    divergence = sinkhorn_divergence(x, x[torch.tensor([3, 1, 5, 0, 4, 2])])
    divergence.backward()
    assert float(divergence.detach()) == pytest.approx(0.0, abs=1e-9)
    assert x.grad is not None
    assert float(x.grad.abs().max()) < 1e-6


def test_one_point_each_is_half_the_squared_distance():
    x, y = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0]])
    assert float(sinkhorn_divergence(x, y)) == pytest.approx(12.5, rel=1e-6)


@pytest.mark.parametrize("blur", [0.5, 1.0])
def test_the_gradient_is_that_of_the_value(blur):
    x, y = points(6, 3, 0.5).requires_grad_(), points(7, 4, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: sinkhorn_divergence(a, b, blur), (x, y), eps=1e-4, atol=1e-5, rtol=1e-3
    )


def test_it_is_symmetric_and_grows_with_distance():
    x, y = points(8, 5), points(9, 5)
    assert float(sinkhorn_divergence(x, y)) == pytest.approx(float(sinkhorn_divergence(y, x)), rel=1e-9)
    near, far = (float(sinkhorn_divergence(x, x + shift)) for shift in (0.1, 0.2))
    assert 0 < near < far


def test_the_numbers_of_geomloss():
    """From geomloss 0.3.1: SamplesLoss("sinkhorn", p=2, blur=0.05, diameter=1e7, scaling=0.95, debias=True)."""
    rng = np.random.default_rng(2023)
    shapes = [(4, 4, 6, 6), (4, 6, 3, 3), (4, 8, 2, 2)]
    _, p, n = [
        [torch.from_numpy((rng.normal(size=s) + 1.0).astype(np.float32)) for s in shapes] for _ in range(3)
    ]
    z = [torch.from_numpy((np.random.default_rng(2023).normal(size=shapes[0]) + 1.0).astype(np.float32))]
    n[0] = 0.8 * z[0] + 0.2 * n[0]
    first = sinkhorn_divergence(p[0].flatten(1).softmax(1), n[0].flatten(1).softmax(1))
    assert float(first) == pytest.approx(0.005943192, abs=1e-7)
    assert float(sinkhorn_divergence(p[0].flatten(1) / 10, n[0].flatten(1) / 10)) == pytest.approx(
        1.2463253, rel=1e-5
    )
