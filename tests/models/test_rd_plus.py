"""RD++: the projections, each part of the loss by hand, and that noise is for training alone."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.rd_plus import RevisitedReverseDistillation, projection_loss

SIZE = ModelSize(64, 64)
IMAGES = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(teacher: str = "test_resnet") -> RevisitedReverseDistillation:
    torch.manual_seed(0)
    method = create_method("rd++", METHODS["rd++"].create_teacher(teacher, "random"), SIZE, "per-position")
    assert isinstance(method, RevisitedReverseDistillation)
    return method


@pytest.mark.parametrize("teacher", ["resnet18", "tf_efficientnet_lite0"])
def test_a_projection_narrows_to_a_quarter(teacher):
    method = made(teacher)
    for projection, c in zip(method.projections, method.teacher.channels, strict=True):
        widths = (c, c // 2, c // 4, c // 2, c)
        expected = sum(9 * i * o + o for i, o in pairwise(widths))
        assert sum(p.numel() for p in projection.parameters()) == expected
        out = projection(torch.randn(1, c, 4, 4))
        assert out.shape == (1, c, 4, 4)
        # Instance norm, then a leaky ReLU with slope 1/100.
        positive = torch.where(out > 0, out, 100 * out)
        torch.testing.assert_close(positive.mean((2, 3)), torch.zeros(1, c), atol=1e-4, rtol=0.0)


def test_the_student_sees_projected_features_when_it_scores():
    method = made().eval()
    with torch.no_grad():
        features = method.teacher_features(IMAGES)
        expected = method.decoder(
            method.bottleneck([p(x) for p, x in zip(method.projections, features, strict=True)])
        )
        got = method.features(IMAGES)
    assert all(torch.equal(a, b) for a, b in zip(got[0], features, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(got[1], expected, strict=True))


def test_noise_is_for_training_alone():
    method = made().eval()
    with torch.no_grad():
        watched = method(IMAGES, method.teacher_features(IMAGES))
        assert torch.equal(watched, method.loss(*method.features(IMAGES)))


def test_it_shows_the_copies_that_it_trains_on(monkeypatch):
    method, seen = made().train(), []
    features = method.teacher_features(IMAGES)
    monkeypatch.setattr(method, "teacher_features", lambda copies: seen.append(copies) or features)
    torch.manual_seed(1)
    method(IMAGES, features)
    torch.manual_seed(1)
    shown, masks = method.disturbed(IMAGES.numpy(), np.random.default_rng(int(torch.randint(2**62, ()))))
    assert np.abs(shown - np.clip(seen[0].numpy(), 0, 255)).max() <= 0.5
    np.testing.assert_array_equal(masks, (shown != IMAGES.numpy()).any(axis=3))


def test_the_projections_learn_a_fifth_as_fast():
    groups = made().optimizer(0.005).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.005, 0.001])
    assert all(group["betas"] == (0.5, 0.999) for group in groups)
    scheduler = made().scheduler(optimizer := made().optimizer(0.005), 10)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
        fast, slow = scheduler.get_last_lr()
        assert slow == pytest.approx(fast / 5)


def test_all_that_is_trained_learns():
    method = made().train()
    method(IMAGES, method.teacher_features(IMAGES)).backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name


def vectors(rows: list[list[float]]) -> torch.Tensor:
    """A batch of images of one position."""
    return torch.tensor(rows)[:, :, None, None]


def test_the_loss_by_hand():
    copy = vectors([[1.0, 0.0], [1.0, 0.0]])
    noisy = vectors([[0.0, 0.0], [0.0, 0.0]])
    # Cosines with the noisy copy 0.8 and 0: 0.3 above the margin, and nothing. Softmax of equal numbers: (1/2, 1/2).
    normal = vectors([[4.0, 3.0], [0.0, 5.0]])
    half, first, second = 0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(5))
    # Both points of one set are the same, so all plans cost the same: half the squared distance, of two components. In
    # the other set each point stays where it is, and the entropy of such a plan is log 2.
    costs = (first - half) ** 2, (second - half) ** 2
    expected_transport = sum(costs) / 2 - 0.05**2 * math.log(2) / 2
    reconstruction = 1.0  # a zero vector
    contrast = (0.3 + 0.0) / 2
    got = float(projection_loss([copy], [noisy], [normal]))
    assert got == pytest.approx(0.2 * expected_transport + 0.002 * reconstruction + 0.02 * contrast, abs=1e-6)


def test_the_numbers_of_the_authors_script():
    """github.com/tientrandinh/Revisiting-Reverse-Distillation at 7f2ceb7, utils/utils_train.py, with geomloss 0.3.1.

    `Revisit_RDLoss` gives reconstruct 1.4344884 and contrast 1.4505257 for these features; its sinkhorn, between noisy
    and normal ones, gives 0.0059432, 0.0167065 and 0.0267571. As it is there, between normal ones and the same
    shuffled, it gives 0.
    """
    rng = np.random.default_rng(2023)
    shapes = [(4, 4, 6, 6), (4, 6, 3, 3), (4, 8, 2, 2)]
    copies, noisy, normal = (
        [torch.from_numpy((rng.normal(size=shape) + 1.0).astype(np.float32)) for shape in shapes]
        for _ in range(3)
    )
    normal = [0.8 * z + 0.2 * n for z, n in zip(copies, normal, strict=True)]
    transport = 0.005943192 + 0.016706504 + 0.026757132
    expected = 0.2 * transport + 0.002 * 1.4344883561 + 0.02 * 1.4505256712
    assert float(projection_loss(copies, noisy, normal)) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_the_loss():
    generator = torch.Generator().manual_seed(3)
    shape = (2, 2, 2, 2)
    z, p, n = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3))
    n = z + 0.2 * n  # above the margin

    def loss(noisy, normal):
        torch.manual_seed(0)
        return projection_loss([z], [noisy], [normal])

    assert torch.autograd.gradcheck(
        loss, (p.requires_grad_(), n.requires_grad_()), eps=1e-4, atol=1e-5, rtol=1e-3
    )
