"""RSTPM: who teaches, what student 2 is made of, how attention weighs, what both pairs add up to."""

import pytest
import torch
from torch import nn

from edgead.errors import InputError, TeacherError
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.head import cosine_map
from edgead.models.rstpm import Attention, ReconstructedPyramidMatching, ReconstructingStudent

SIZE = ModelSize(64, 64)
IMAGES = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(name: str, teacher: str) -> ReconstructedPyramidMatching:
    torch.manual_seed(0)
    name, _, variant = name.partition(":")
    teachers = METHODS[name].create_teacher(teacher, "random")
    method = create_method(name, teachers, SIZE, "per-position", variant=variant or "standard")
    assert isinstance(method, ReconstructedPyramidMatching)
    return method


def test_a_resnet18_is_joined_by_a_resnet50():
    method = made("rstpm", "resnet18").eval()
    shapes = [tuple(x.shape[1:]) for x in method.teacher_features(IMAGES)]
    assert shapes == [
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
        (256, 16, 16),
        (512, 8, 8),
        (1024, 4, 4),
    ]
    # 2x2 convolutions on the way and on the shortcut, a 3x3 one, three batch norms.
    blocks = [4 * i * o + 4 * i * o + 9 * o * o + 6 * o for i, o in ((512, 1024), (1024, 512), (512, 256))]
    assert sum(p.numel() for p in method.decoder.blocks.parameters()) == sum(blocks)
    assert not list(method.decoder.outputs.parameters())


def test_the_first_design_has_nearly_twice_the_parameters():
    """A front block, then a 3x3 transposed convolution and a block for each stride; two batch norms and three."""
    first, second = (
        sum(p.numel() for p in ReconstructingStudent(512, (256, 512, 1024), None, True, deep).parameters())
        for deep in (True, False)
    )
    front = 2 * (9 * 512 * 512 + 2 * 512)
    pairs = ((512, 1024), (1024, 512), (512, 256))
    assert first == front + sum(9 * i * o + 2 * 9 * o * o + 3 * 2 * o for i, o in pairs)
    assert second / first == pytest.approx(0.54, abs=0.005)


def test_the_first_design_doubles_the_resolution():
    decoder = ReconstructingStudent(6, (3, 5, 8), None, False, deep=True)
    assert decoder.front(torch.randn(1, 6, 2, 3)).shape == (1, 6, 2, 3)
    shapes = [tuple(x.shape) for x in decoder(torch.randn(1, 6, 2, 3), [])]
    assert shapes == [(1, 3, 16, 24), (1, 5, 8, 12), (1, 8, 4, 6)]


def test_any_other_teaches_both_pairs():
    method = made("rstpm", "tf_efficientnet_lite0").eval()
    assert [x.shape[1] for x in method.teacher_features(IMAGES)] == [24, 40, 112, 320]
    with torch.no_grad():
        student = method.student_features(IMAGES, method.teacher_features(IMAGES))
    assert [x.shape[1] for x in student] == [24, 40, 112] * 2
    # Features of this teacher may be negative, so student 2's must be able to.
    assert all(float(x.min()) < 0 for x in student[3:])


def test_student_2_sees_the_images_through_the_teachers_only():
    for name, same in (
        ("rstpm", True),
        ("rstpm:deep", True),
        ("rstpm:direct", False),
        ("rstpm:direct-split", False),
    ):
        method = made(name, "test_resnet").eval()
        with torch.no_grad():
            features = method.teacher_features(IMAGES)
            seen = method.student_features(IMAGES, features)[3:]
            blind = method.student_features(torch.zeros_like(IMAGES), features)[3:]
        assert all(torch.equal(a, b) for a, b in zip(seen, blind, strict=True)) == same


@pytest.mark.parametrize(
    ("name", "learns"),
    [("rstpm", False), ("rstpm:direct", True), ("rstpm:direct-split", False), ("rstpm:deep", False)],
)
def test_student_1_learns_from_pair_2_only_where_it_feeds_it(name, learns):
    method = made(name, "test_resnet").train()
    features = method.teacher_features(IMAGES)
    second = method.student_features(IMAGES, features)[3:]
    torch.stack([cosine_map(t, s).mean() for t, s in zip(features[:3], second, strict=True)]).sum().backward()
    reached = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in method.student.parameters())
    assert reached == learns


@pytest.mark.parametrize(
    ("name", "floors"),
    [
        ("rstpm", [0.0, 1.0]),
        ("rstpm:multiplied", [0.0, 0.0]),
        ("rstpm:added", [1.0, 1.0]),
        ("rstpm:no-attention", []),
        ("rstpm:direct", [0.0, 1.0]),
        ("rstpm:direct-split", [0.0, 1.0]),
        ("rstpm:deep", [0.0, 1.0]),
    ],
)
def test_attention_is_where_the_name_says(name, floors):
    assert [attention.floor for attention in made(name, "test_resnet").decoder.attention] == floors


@pytest.mark.parametrize(("weighing", "weight"), [("*", 0.75), ("+", 1.75)])
def test_attention_by_hand(weighing, weight):
    attention = Attention(4, weighing).eval()
    last = attention.weights[1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 1.0986123)  # the sigmoid of log 3 is 3/4
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(attention(x, torch.randn(1, 4, 3, 3)), weight * x)


def test_attention_weighs_positions_and_not_channels():
    torch.manual_seed(1)
    attention = Attention(8, "*").eval()
    weights = attention(torch.ones(1, 5, 4, 4), torch.randn(1, 8, 4, 4)).detach()
    assert torch.equal(weights, weights[:, :1].expand(1, 5, 4, 4))
    assert float(weights.std()) > 0
    assert 0 < float(weights.min()) < float(weights.max()) < 1


def test_both_attentions_learn():
    method = made("rstpm", "test_resnet").train()
    method(IMAGES, method.teacher_features(IMAGES)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in method.trained())


@pytest.mark.parametrize("teacher", ["test_resnet", "tf_efficientnet_lite0"])
def test_a_split_student_1_is_trained_where_it_is_compared(teacher):
    """Every weight of it learns from pair 1 or is frozen, and those that are frozen are what stride 32 adds."""
    method = made("rstpm:direct-split", teacher).train()
    method(IMAGES, method.teacher_features(IMAGES)).backward()
    for name, parameter in method.student.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    whole = made("rstpm", teacher).student
    trained = [p for p in method.student.parameters() if p.requires_grad]
    assert [p.shape for p in trained] == [p.shape for p in whole.parameters()]
    assert len(trained) < len(list(method.student.parameters()))


def directions(degrees: list[float]) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()]).reshape(1, 2, 1, -1)


def test_loss_and_map_by_hand():
    """One position a scale; pair 1 is apart by 60, 90 and 0 degrees, pair 2 by 90, 180 and 60 from a teacher at 30."""
    method = ReconstructedPyramidMatching.__new__(ReconstructedPyramidMatching)
    north = directions([0.0])
    aside = directions([30.0])
    teacher = [north, 2 * north, 3 * north, torch.ones(1, 7, 1, 1), aside, aside, 5 * aside]
    student = [directions([a]) for a in (60.0, 90.0, 0.0, 30.0 + 90.0, 30.0 + 180.0, 30.0 + 60.0)]
    assert float(method.loss(teacher, student)) == pytest.approx(0.5 + 1 + 0 + 1 + 2 + 0.5, abs=1e-6)
    pairs = zip(*method.head_features(teacher, student), strict=True)
    maps = [float(cosine_map(t, s)) for t, s in pairs]
    assert maps == pytest.approx([(0.5 + 1) / 2, (1 + 2) / 2, (0 + 0.5) / 2], abs=1e-6)


def test_the_only_teacher_is_compared_with_both_students():
    method = ReconstructedPyramidMatching.__new__(ReconstructedPyramidMatching)
    teacher = [directions([0.0])] * 3 + [torch.ones(1, 7, 1, 1)]
    student = [directions([a]) for a in (60.0, 60.0, 60.0, 90.0, 90.0, 90.0)]
    assert float(method.loss(teacher, student)) == pytest.approx(3 * 0.5 + 3 * 1, abs=1e-6)


def test_two_teachers_need_two_files():
    with pytest.raises(TeacherError) as refusal:
        METHODS["rstpm"].create_teacher("resnet18", "weights.pth")
    assert all(value in refusal.value.what for value in ("weights.pth", "'resnet18'", "'resnet50'"))
    with pytest.raises(TeacherError) as refusal:
        METHODS["rstpm"].create_teacher("resnet18", "one.pth,two.pth")
    assert "one.pth" in refusal.value.what
    assert "two.pth" not in refusal.value.what


def test_a_variant_that_the_method_does_not_have_is_refused():
    for name in ("rstpm:shallow", "rstpm+:deep", "stfpm:deep"):
        with pytest.raises(InputError):
            made(name, "test_resnet")
