"""Patch networks: receptive fields, and the statistics of what they give."""

import numpy as np
import pytest
import torch

from edgead.models.components.patch_networks import PatchSpec, mean_and_std, patch_network

STRIDES = (4, 8, 16)
SPEC = PatchSpec((4, 6, 8, 8), 5)


@pytest.mark.parametrize("stride", STRIDES)
def test_a_position_sees_a_square_of_four_strides_and_a_pixel(stride):
    torch.manual_seed(0)
    network = patch_network(stride, SPEC).double()
    pixels = torch.randn(1, 3, 160, 192, dtype=torch.float64, requires_grad=True)
    out = network(pixels)
    assert out.shape == (1, 5, 160 // stride, 192 // stride)
    row, column = 80 // stride, 96 // stride
    # Of products of weights drawn at random none is zero by chance.
    out[0, :, row, column].sum().backward()
    seen = (pixels.grad[0] != 0.0).all(0)
    assert torch.equal(seen, (pixels.grad[0] != 0.0).any(0))
    expected = torch.zeros(160, 192, dtype=torch.bool)
    top, left = stride * row - 2 * stride, stride * column - 2 * stride
    field = {4: 17, 8: 33, 16: 65}[stride]
    expected[top : top + field, left : left + field] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("by_position", [False, True])
def test_mean_and_std_do_not_depend_on_the_batches(by_position):
    values = torch.randn(7, 2, 3, 5, generator=torch.Generator().manual_seed(4)) * 3.0 + 40.0
    whole = mean_and_std([[values]], by_position)
    parts = mean_and_std([[values[:2]], [values[2:3]], [values[3:]]], by_position)
    over = 0 if by_position else (0, 2, 3)
    exact = values.double().numpy()
    for mean, std in (*whole, *parts):
        assert mean.shape == std.shape == ((2, 3, 5) if by_position else (2, 1, 1))
        np.testing.assert_allclose(mean.squeeze(), exact.mean(over), rtol=1e-12)
        np.testing.assert_allclose(std.squeeze(), exact.std(over), rtol=1e-9)
