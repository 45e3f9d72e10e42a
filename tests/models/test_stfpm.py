"""STFPM, its slim student and its ensemble: the loss by hand, the authors' numbers, the students' layers."""

import numpy as np
import pytest
import torch
from torch import nn

from edgead.errors import TeacherError
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.base import DistillationMethod, Preset
from edgead.models.components.head import AnomalyMapHead, unit
from edgead.models.stfpm import FeaturePyramidMatching
from edgead.models.stfpm_ensemble import FeaturePyramidEnsemble
from edgead.types import HeadSpec

SIZE = ModelSize(64, 64)


def made(name: str, teacher: str) -> DistillationMethod:
    torch.manual_seed(0)
    return create_method(name, METHODS[name].create_teacher(teacher, "random"), SIZE, "per-position")


def loss_of(kind, teacher, student):
    return kind.loss(kind.__new__(kind), teacher, student)


def hand_case():
    """Two scales; half the squared distances of the vectors of length 1: 1 and 0, and |(0.6, 0.8) - (1, 0)|^2 / 2."""
    teacher = torch.tensor([[1.0, 2.0], [0.0, 2.0]]).reshape(1, 2, 1, 2)
    student = torch.tensor([[0.0, 7.0], [5.0, 7.0]]).reshape(1, 2, 1, 2)
    coarse_teacher, coarse_student = torch.tensor([3.0, 4.0]), torch.tensor([9.0, 0.0])
    return (
        [teacher, coarse_teacher.reshape(1, 2, 1, 1)],
        [student, coarse_student.reshape(1, 2, 1, 1)],
    )


def test_the_loss_by_hand():
    assert float(loss_of(FeaturePyramidMatching, *hand_case())) == pytest.approx((1 + 0) / 2 + 0.4, abs=1e-6)


def test_the_loss_of_the_ensemble_is_that_of_each():
    teacher, student = hand_case()
    students = [*student, *teacher, *student]
    assert float(loss_of(FeaturePyramidEnsemble, teacher, students)) == pytest.approx(0.9 + 0 + 0.9, abs=1e-6)


def test_the_gradient_of_the_loss():
    generator = torch.Generator().manual_seed(9)
    shapes = [(2, 3, 3, 2), (2, 4, 1, 2)]
    teacher = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    student = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes
    ]
    assert torch.autograd.gradcheck(
        lambda *s: loss_of(FeaturePyramidMatching, teacher, list(s)), tuple(student)
    )


def test_the_numbers_of_the_authors_script():
    """github.com/gdwang08/STFPM, main.py at 2598a5e: `train_val` and `test` with features in the place of networks.

    Their loss has no half, nor has their map at each of three scales; it is 64 x 64, of corners that are not aligned.
    """
    rng = np.random.default_rng(2103)
    shapes = [(2, 5, 8, 8), (2, 6, 4, 4), (2, 7, 2, 2)]
    teacher, student = (
        [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes] for _ in range(2)
    )
    assert 2 * float(loss_of(FeaturePyramidMatching, teacher, student)) == pytest.approx(5.675858, abs=1e-6)
    head = AnomalyMapHead(HeadSpec(64, 64, "multiply", 0.0, False), [shape[2:] for shape in shapes])
    got = 8 * head(teacher, student)[0][:, 0]
    assert [float(got[0, 0, 0]), float(got[0, 31, 17]), float(got[1, 63, 40]), float(got.mean())] == (
        pytest.approx([5.4837108, 6.1084962, 8.0830383, 6.9107022], rel=1e-5)
    )


@pytest.mark.parametrize("teacher", ["resnet18", "tf_efficientnet_lite0"])
def test_the_student_has_the_layers_of_the_teacher(teacher):
    method = made("stfpm", teacher).eval()
    frozen = method.teacher.layers.state_dict()
    student = method.student.layers.state_dict()
    # timm names the layers of a network that was cut off in another way.
    names = {key.removeprefix("model."): value for key, value in student.items()}
    assert {k: v.shape for k, v in names.items()} == {k: frozen[k].shape for k in names}
    assert any(not torch.equal(v, frozen[k]) for k, v in names.items() if k.endswith("weight"))

    method.student.layers.load_state_dict({key: frozen[key.removeprefix("model.")] for key in student})
    with torch.no_grad():
        for t, s in zip(*method.features(torch.randint(0, 256, (1, 64, 64, 3))), strict=True):
            torch.testing.assert_close(t, s, rtol=1e-5, atol=1e-5)


def test_every_weight_of_a_student_learns():
    method = made("stfpm", "tf_efficientnet_lite0").train()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    method(images, method.teacher_features(images)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in method.trained())


@pytest.mark.parametrize(
    ("teacher", "inner", "outer"),
    # The last block of each; filters inside it, channels out of it.
    [("resnet18", 256 // 4, 256), ("tf_efficientnet_lite0", 672 // 4, 112), ("resnet50", 256 // 4, 1024)],
)
def test_a_slim_student_has_a_quarter_of_the_filters_inside_a_block(teacher, inner, outer):
    method = made("stfpm-slim", teacher).eval()
    plain = made("stfpm", teacher)
    convolutions = [m for m in method.student.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions[-1].in_channels == inner
    assert convolutions[-1].out_channels == outer
    count = sum(p.numel() for p in method.student.parameters())
    assert count < 0.45 * sum(p.numel() for p in plain.student.parameters())
    with torch.no_grad():
        teacher_side, student_side = method.features(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [x.shape for x in student_side] == [x.shape for x in teacher_side]


def test_parameters_of_a_slim_resnet18_by_hand():
    # conv1, bn1; then per block 3x3 in -> c/4, 3x3 c/4 -> c, two batch norms; a 1x1 shortcut where c doubles.
    expected = 7 * 7 * 3 * 64 + 2 * 64
    for i, c in ((64, 64), (64, 128), (128, 256)):
        for a in (i, c):
            expected += 9 * a * (c // 4) + 9 * (c // 4) * c + 2 * (c // 4) + 2 * c
            expected += (a * c + 2 * c) if a != c else 0
    student = made("stfpm-slim", "resnet18").student
    assert sum(p.numel() for p in student.parameters()) == expected


@pytest.mark.parametrize("teacher", ["test_efficientnet", "convnext_atto"])
def test_what_cannot_be_slimmed_is_refused(teacher):
    with pytest.raises(TeacherError) as refusal:
        made("stfpm-slim", teacher)
    assert f"{teacher!r}" in refusal.value.what
    assert "--method stfpm" in refusal.value.hint


@pytest.mark.parametrize("teacher", ["resnet18", "tf_efficientnet_lite0", "mobilenetv2_100"])
def test_a_student_that_shares_the_start_of_the_teacher_goes_on_as_the_teacher_does(teacher):
    method = made("stfpm-shared", teacher).eval()
    frozen = method.teacher.layers.state_dict()
    student = method.student.state_dict()
    names = {key: key.removeprefix("model.") for key in student}
    assert 0 < len(student) < len(made("stfpm", teacher).student.layers.state_dict())
    method.student.load_state_dict({key: frozen[name] for key, name in names.items()})
    images = torch.randint(0, 256, (1, 64, 64, 3))
    with torch.no_grad():
        teacher_side, student_side = method.features(images)
    assert [x.shape[2] for x in teacher_side] == [16, 8, 4]
    for t, s in zip(teacher_side, student_side, strict=True):
        torch.testing.assert_close(t, s, rtol=1e-5, atol=1e-5)


def test_a_teacher_without_features_to_share_is_refused():
    with pytest.raises(TeacherError) as refusal:
        made("stfpm-shared", "convnext_atto")
    assert "'convnext_atto'" in refusal.value.what


def test_the_students_of_an_ensemble_start_differently():
    method = made("stfpm-ensemble", "test_resnet").eval()
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = method.student_features(images, method.teacher_features(images))
    assert len(features) == 9
    for k in range(3):
        one, two, three = features[k::3]
        assert one.shape == two.shape == three.shape
        assert not torch.allclose(one, two)
        assert not torch.allclose(two, three)


def test_the_sides_of_the_ensemble_have_one_length():
    generator = torch.Generator().manual_seed(2)
    teacher = [torch.randn(2, 5, 3, 3, generator=generator)]
    alike = [3.0 * teacher[0], teacher[0], 0.5 * teacher[0]]
    apart = [torch.randn(2, 5, 3, 3, generator=generator) for _ in range(3)]
    head_features = FeaturePyramidEnsemble.head_features
    for students in (alike, apart):
        t, s = head_features(FeaturePyramidEnsemble.__new__(FeaturePyramidEnsemble), teacher, students)
        for side in (t[0], s[0]):
            torch.testing.assert_close(side.square().sum(1), torch.full((2, 3, 3), 2.0))
    t, s = head_features(FeaturePyramidEnsemble.__new__(FeaturePyramidEnsemble), teacher, alike)
    torch.testing.assert_close(t[0], s[0], atol=2e-3, rtol=0.0)


def test_a_unit_vector_of_nothing_is_nothing():
    x = torch.zeros(1, 3, 1, 2)
    x[0, :, 0, 1] = torch.tensor([2.0, -1.0, 2.0])
    got = unit(x)
    assert got[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert got[0, :, 0, 1].tolist() == pytest.approx([2 / 3, -1 / 3, 2 / 3])
    assert bool(torch.isfinite(unit(x.half())).all())


@pytest.mark.parametrize("name", ["stfpm", "stfpm-slim", "stfpm-shared", "stfpm-ensemble", "rstpm"])
def test_the_paper_descends_as_published_and_the_edge_as_reverse_distillation(name: str) -> None:
    def optimizer(preset: Preset) -> torch.optim.Optimizer:
        teacher = METHODS[name].create_teacher("test_resnet", "random")
        method = create_method(name, teacher, SIZE, "per-position", preset=preset)
        return method.optimizer(method.hyperparameters.learning_rate)

    paper, edge = optimizer("paper"), optimizer("edge")
    assert isinstance(paper, torch.optim.SGD)
    assert [paper.defaults[key] for key in ("lr", "momentum", "weight_decay")] == [0.4, 0.9, 1e-4]
    assert isinstance(edge, torch.optim.Adam)
    assert edge.defaults["betas"] == (0.5, 0.999)
