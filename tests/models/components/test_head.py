import numpy as np
import pytest
import torch

from edgead.imaging import anomaly_map as oracle
from edgead.models.components.head import AnomalyMapHead, cosine_map
from edgead.types import HeadSpec


def features(rng, n, shapes):
    return [rng.normal(size=(n, *shape)).astype(np.float32) for shape in shapes]


def test_the_cosine_map_is_the_oracles():
    rng = np.random.default_rng(1)
    t, s = rng.normal(size=(2, 3, 7, 5, 9)).astype(np.float32)
    t[0, :, 1, 2] = 0.0
    s[1, :, 0, 3] = 0.0
    t[2, :, 4, 4] = s[2, :, 4, 4] = 0.0

    got = cosine_map(torch.from_numpy(t), torch.from_numpy(s))

    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), oracle.cosine_map(t, s), atol=1e-6)
    assert got[0, 1, 2] == got[1, 0, 3] == got[2, 4, 4] == 1.0


def test_the_cosine_map_of_half_precision_is_computed_in_single():
    rng = np.random.default_rng(2)
    t, s = (torch.from_numpy(rng.normal(size=(1, 16, 3, 3)) * 1000).half() for _ in range(2))
    got = cosine_map(t, s)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), oracle.cosine_map(t.numpy(), s.numpy()), atol=1e-6)


def test_the_gradient_of_the_cosine_map():
    generator = torch.Generator().manual_seed(4)
    t, s = (
        torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(cosine_map, (t, s))


@pytest.mark.parametrize("weights", [(), (0.5, 0.25, 3.0)])
@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize(
    ("height", "width", "sigma", "align_corners"),
    [(64, 64, 4.0, True), (37, 53, 4.0, True), (48, 20, 1.5, False), (33, 33, 0.0, True), (9, 5, 4.0, False)],
)
def test_map_and_score_are_the_oracles(fusion, height, width, sigma, align_corners, weights):
    rng = np.random.default_rng(7)
    shapes = [(6, 16, 12), (9, 8, 7), (12, 3, 4)]
    teacher, student = features(rng, 3, shapes), features(rng, 3, shapes)
    teacher[0][0, :, 3, 3] = 0.0
    student[1][1] = 0.0
    expected_map, expected_score = oracle.anomaly_map(
        teacher, student, height, width, fusion, sigma, align_corners, weights
    )
    head = AnomalyMapHead(
        HeadSpec(height, width, fusion, sigma, align_corners, weights), [shape[1:] for shape in shapes]
    )

    got_map, got_score = head([torch.from_numpy(x) for x in teacher], [torch.from_numpy(x) for x in student])

    assert got_map.shape == (3, 1, height, width)
    assert got_map.dtype == got_score.dtype == torch.float32
    np.testing.assert_allclose(got_map.numpy(), expected_map, atol=1e-5)
    np.testing.assert_allclose(got_score.numpy(), expected_score, atol=1e-5)


def test_the_head_has_nothing_to_train_or_to_save():
    head = AnomalyMapHead(HeadSpec(16, 16), [(4, 4), (2, 2)])
    assert list(head.parameters()) == []
    assert head.state_dict() == {}


def test_one_student_feature_per_teacher_feature():
    head = AnomalyMapHead(HeadSpec(16, 16), [(4, 4)])
    x = torch.ones(1, 2, 4, 4)
    with pytest.raises(ValueError):  # noqa: PT011 - the error of zip(strict=True)
        head([x, x], [x])
