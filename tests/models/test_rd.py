import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.base import MethodConfig
from edgead.models.components.blocks import (
    BasicBlock,
    BottleneckBlock,
    Resample,
    SeparableBlock,
    initialise,
    separable_relu,
)
from edgead.models.components.teacher import Teacher, create_teacher
from edgead.models.rd import LOSSES, ReverseDistillation

SIZE = ModelSize(64, 96)


def basic_block(i: int, o: int, width: int, kernel: int, shortcut_kernel: int) -> int:
    """Parameters: a resampling convolution, a 3x3 one, two batch norms of 2 o, and a shortcut where asked."""
    shortcut = shortcut_kernel * i * o + 2 * o if shortcut_kernel else 0
    return kernel * i * o + 9 * o * o + 4 * o + shortcut


def bottleneck_block(i: int, o: int, width: int, kernel: int, shortcut_kernel: int) -> int:
    """Parameters: 1x1 to `width`, a resampling one, 1x1 to o, three batch norms and a shortcut."""
    shortcut = shortcut_kernel * i * o + 2 * o if shortcut_kernel else 0
    return i * width + kernel * width * width + width * o + 4 * width + 2 * o + shortcut


# Kernels: 3x3 = 9 with a 1x1 shortcut where the embedding halves, 2x2 = 4 with a 2x2 shortcut where the decoder
# doubles.
RESNETS = {
    # name: channels of layer1, block, blocks of the embedding, of the decoder, width of a bottleneck
    "resnet18": (64, basic_block, 2, (2, 2, 2), 0.0),
    "resnet34": (64, basic_block, 3, (3, 4, 6), 0.0),
    "resnet50": (256, bottleneck_block, 3, (3, 4, 6), 0.25),
    "wide_resnet50_2": (256, bottleneck_block, 3, (3, 4, 6), 0.5),
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", list(RESNETS))
def test_a_resnet_gets_the_student_of_the_authors(name):
    c, block, embedding_blocks, decoder_blocks, width = RESNETS[name]
    fusion = 9 * (c * 2 * c + 2 * c * 4 * c + 2 * c * 4 * c) + 2 * (2 * c + 4 * c + 4 * c)
    embedded = 8 * c
    embedding = block(12 * c, embedded, int(width * embedded), 9, 1) + (embedding_blocks - 1) * block(
        embedded, embedded, int(width * embedded), 9, 0
    )
    decoder, i = 0, embedded
    for o, blocks in zip((4 * c, 2 * c, c), decoder_blocks, strict=True):
        decoder += block(i, o, int(width * o), 4, 4) + (blocks - 1) * block(o, o, int(width * o), 9, 0)
        i = o

    with torch.device("meta"):
        method = ReverseDistillation(_shapes_only(name), MethodConfig(SIZE, "flattened"))

    assert parameters(method.bottleneck) == fusion + embedding
    assert parameters(method.decoder) == decoder
    convolutions = 2 if block is basic_block else 3
    count = sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in method.modules())
    # Three of the fusion, and a shortcut for the first block of each of the four stages.
    assert count == 3 + 4 + convolutions * (embedding_blocks + sum(decoder_blocks))
    # The first block of a decoder's stage doubles twice, on its way and on its shortcut.
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in method.modules()) == 6


class _ShapesOnly(nn.Module):
    def __init__(self, architecture: str, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.architecture, self.channels = architecture, channels


def _shapes_only(name: str) -> Teacher:
    c = RESNETS[name][0]
    return _ShapesOnly(name, (c, 2 * c, 4 * c))  # type: ignore[return-value]


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
@pytest.mark.parametrize("size", [ModelSize(64, 64), ModelSize(96, 160)], ids=str)
def test_the_lean_student_gives_the_teachers_shapes_at_any_size(alignment, size):
    method = create_method(
        "rd", create_teacher("test_efficientnet", "random"), size, LOSSES[0], alignment
    ).eval()
    images = torch.randint(0, 256, (2, size.height_px, size.width_px, 3), dtype=torch.uint8)
    with torch.no_grad():
        teacher, student = method.features(images)
    assert [x.shape for x in student] == [x.shape for x in teacher]
    assert [x.shape[2] for x in teacher] == [size.height_px // stride for stride in (4, 8, 16)]


@pytest.mark.parametrize(("alignment", "stride"), [("aligned", 64), ("unaligned", 32)])
def test_the_embedding_of_aligned_parts_passes_stride_64(alignment, stride):
    size = ModelSize(128, 256)
    method = create_method(
        "rd", create_teacher("test_efficientnet", "random"), size, LOSSES[0], alignment
    ).eval()
    seen = []
    for layer in method.bottleneck.modules():
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(tuple(output.shape[2:])))
    with torch.no_grad():
        method.features(torch.zeros(1, 128, 256, 3, dtype=torch.uint8))
    assert min(seen) == (128 // stride, 256 // stride)
    assert seen[-1] == (4, 8)


@pytest.mark.parametrize(("alignment", "separable"), [("aligned", True), ("unaligned", False)])
def test_the_convolutions_of_aligned_parts_alone_are_separable(alignment, separable):
    method = create_method("rd", create_teacher("test_efficientnet", "random"), SIZE, LOSSES[0], alignment)
    layers = [*method.bottleneck.modules(), *method.decoder.modules()]
    wide = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert len(wide) > 3
    assert all((layer.groups == layer.in_channels) == separable for layer in wide)


def test_the_fusion_of_aligned_parts_halves_and_clips():
    torch.manual_seed(0)
    module = separable_relu(3, 4).eval()
    x = torch.randn(2, 3, 8, 6)
    with torch.no_grad():
        out, before = module(x), module[0](x)
    assert out.shape == (2, 4, 4, 3)
    assert (before < 0).any()
    torch.testing.assert_close(out, before.clamp(min=0))


def finished(kind: str = "rd", alignment: str = "aligned", preset: str = "edge", parts: int = 1):
    """A method without training after its end, its images, and both sides before it."""
    torch.manual_seed(0)
    teacher = create_teacher("test_efficientnet", "random")
    method = create_method(kind, teacher, SIZE, LOSSES[0], alignment, preset).eval()
    images = torch.randint(0, 256, (3, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = method.features(images)
        method.parts = parts
        method.finish_stage((images[i : i + 2], [x[i : i + 2] for x in before[0]]) for i in (0, 2))
    return method, images, before


@pytest.mark.parametrize("kind", ["rd", "rd++"])
def test_the_student_of_aligned_parts_moves_towards_the_usual_features(kind):
    method, images, (teacher, student) = finished(kind)
    with torch.no_grad():
        after = method.features(images)[1]
    for t, s, moved in zip(teacher, student, after, strict=True):
        good, own = t.double().numpy(), s.double().numpy()
        mean = good.mean(axis=0)
        length, usual_length = (np.sqrt((x**2).sum(axis=-3)).mean() for x in (own, mean))
        # Half as long as the student's features.
        expected = own + 0.5 * mean * length / usual_length
        np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-4, atol=1e-4 * length)


def test_usual_features_come_after_the_training():
    method, images, (teacher, _) = finished()
    method.train()
    with torch.no_grad():
        trained = method.student_features(images, teacher)
        expected = method.decoder(method.bottleneck(teacher))
    # Batch normalisation sees the same batch in both, so only usual features could make a difference.
    assert all(torch.equal(a, b) for a, b in zip(trained, expected, strict=True))


@pytest.mark.parametrize(
    "options", [{"alignment": "unaligned"}, {"preset": "paper"}, {"parts": 2}], ids=lambda x: next(iter(x))
)
def test_other_students_have_no_usual_features(options):
    method, images, (_, student) = finished(**options)
    with torch.no_grad():
        after = method.features(images)[1]
    assert all(torch.equal(a, b) for a, b in zip(student, after, strict=True))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "test_resnet", "test_efficientnet"])
def test_the_student_gives_the_teachers_shapes(name):
    method = create_method("rd", create_teacher(name, "random"), SIZE, LOSSES[0]).eval()
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        teacher, student = method.features(images)
    assert [x.shape for x in student] == [x.shape for x in teacher]
    assert [x.shape[2:] for x in teacher] == [(16, 24), (8, 12), (4, 6)]


def test_the_student_sees_the_images_through_the_teacher_only():
    method = create_method("rd", create_teacher("test_resnet", "random"), SIZE, LOSSES[0]).eval()
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = method.teacher_features(images)
        seen = method.student_features(images, features)
        blind = method.student_features(torch.zeros_like(images), features)
    assert all(torch.equal(a, b) for a, b in zip(seen, blind, strict=True))


def test_training_changes_the_student_and_not_the_teacher():
    torch.manual_seed(0)
    method = create_method("rd", create_teacher("test_resnet", "random"), SIZE, LOSSES[0]).train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)

    losses = []
    for _ in range(8):
        loss = method(images, method.teacher_features(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < losses[0]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trained)
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("teacher."), key


def loss_of(kind: str, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    method = ReverseDistillation.__new__(ReverseDistillation)
    nn.Module.__init__(method)
    method.loss_kind = kind
    return method.loss(teacher, student)


def hand_case() -> tuple[list[Tensor], list[Tensor]]:
    """Two scales of two channels, one image; cosines 0, 3/5, 1 and -1 at the four positions of the first scale."""
    teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0], [2.0, 2.0], [1.0, 1.0]]).T.reshape(1, 2, 2, 2)
    student = torch.tensor([[0.0, 5.0], [1.0, 0.0], [7.0, 7.0], [-2.0, -2.0]]).T.reshape(1, 2, 2, 2)
    coarse = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    return [teacher, coarse], [student, torch.tensor([2.0, 1.0]).reshape(1, 2, 1, 1)]


def test_the_loss_per_position_by_hand():
    # Distances 1, 2/5, 0, 2 of the first scale, 1 - 4/5 of the second.
    loss = loss_of("per-position", *hand_case())
    assert float(loss) == pytest.approx((1 + 0.4 + 0 + 2) / 4 + 0.2, abs=1e-6)


def test_the_flattened_loss_by_hand():
    # Dot products 0 + 3 + 28 - 4; squared norms 1 + 25 + 8 + 2 and 25 + 1 + 98 + 8.
    loss = loss_of("flattened", *hand_case())
    assert float(loss) == pytest.approx(1 - 27 / math.sqrt(36 * 132) + 0.2, abs=1e-6)


def test_the_loss_of_hard_positions_by_hand():
    # A tenth of four positions, and of one, is one position: the worst. Half of it is added.
    loss = loss_of("hard-positions", *hand_case())
    assert float(loss) == pytest.approx((1 + 0.4 + 0 + 2) / 4 + 0.2 + 0.5 * (2 + 0.2), abs=1e-6)


def test_hard_positions_are_a_tenth_of_each_image():
    angles = torch.linspace(0.0, math.pi, 40).reshape(2, 1, 4, 5)
    teacher = torch.cat([torch.ones_like(angles), torch.zeros_like(angles)], dim=1)
    student = torch.cat([angles.cos(), angles.sin()], dim=1)
    distance = [1 - math.cos(math.pi * number / 39) for number in range(40)]
    # Two of twenty positions in each image; the distance grows with the number of the position.
    hardest = (distance[18] + distance[19] + distance[38] + distance[39]) / 4
    loss = loss_of("hard-positions", [teacher], [student])
    assert float(loss) == pytest.approx(sum(distance) / 40 + 0.5 * hardest, abs=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_zero_for_the_teacher_itself_at_any_length(kind):
    teacher, _ = hand_case()
    assert float(loss_of(kind, teacher, [3.0 * x for x in teacher])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_gradient_of_a_loss(kind):
    generator = torch.Generator().manual_seed(9)
    shapes = [(2, 3, 4, 5), (2, 4, 2, 2)]
    teacher = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    student = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes
    ]
    assert torch.autograd.gradcheck(lambda *s: loss_of(kind, teacher, list(s)), tuple(student))


def test_an_unknown_loss_is_named():
    teacher = create_teacher("test_resnet", "random")
    with pytest.raises(InputError) as refusal:
        create_method("rd", teacher, SIZE, "mse")
    assert "'mse'" in refusal.value.what
    assert refusal.value.hint.endswith("--loss hard-positions or per-position or flattened")


def test_an_unknown_method_is_named():
    teacher = create_teacher("test_resnet", "random")
    with pytest.raises(InputError) as refusal:
        create_method("magic", teacher, SIZE, LOSSES[0])
    assert "'magic'" in refusal.value.what
    assert refusal.value.hint.endswith(f"--method {' or '.join(METHODS)}")


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize(
    ("resample", "size"), [(Resample.KEEP, 6), (Resample.HALVE, 3), (Resample.DOUBLE, 12)]
)
def test_a_block_changes_channels_and_resolution(block, resample, size):
    extra = (4,) if block is BottleneckBlock else ()
    made = block(5, 8, resample, *extra)
    out = made(torch.randn(2, 5, 6, 6))
    assert out.shape == (2, 8, size, size)
    assert float(out.detach().min()) == 0.0


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_a_block_that_keeps_all_has_a_shortcut_without_weights(block):
    extra = (2,) if block is BottleneckBlock else ()
    made = block(4, 4, Resample.KEEP, *extra).eval()
    for name, parameter in made.named_parameters():
        if name.startswith("bn"):
            nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(made(x), x.clamp_min(0.0))


@pytest.mark.parametrize(("resample", "stride"), [(Resample.KEEP, 1), (Resample.HALVE, 2)])
def test_a_separable_block_computes_what_its_definition_says(resample, stride):
    """Against NumPy's float64, with batch normalisations that scale and move each channel."""
    torch.manual_seed(0)
    block = SeparableBlock(3, 4, resample).double().eval()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.uniform_(layer.bias, -1.0, 1.0)
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    w = {name: value.numpy() for name, value in block.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scale = w[f"{name}.weight"] / np.sqrt(w[f"{name}.running_var"] + 1e-5)
        return (x - w[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][
            :, None, None
        ]

    def separable(x: np.ndarray, name: str, step: int) -> np.ndarray:
        padded, kernel = np.pad(x, ((0, 0), (1, 1), (1, 1))), w[f"{name}.0.weight"][:, 0]
        side = x.shape[1]
        deep = sum(
            padded[:, i : i + side, j : j + side] * kernel[:, i, j, None, None]
            for i in range(3)
            for j in range(3)
        )[:, ::step, ::step]
        return norm(
            np.einsum("oi,ihw->ohw", w[f"{name}.2.weight"][:, :, 0, 0], norm(deep, f"{name}.1")), f"{name}.3"
        )

    start = x.numpy()[0]
    shortcut = norm(
        np.einsum("oi,ihw->ohw", w["shortcut.0.weight"][:, :, 0, 0], start[:, ::stride, ::stride]),
        "shortcut.1",
    )
    first = np.maximum(separable(start, "convolutions.0", stride), 0)
    expected = separable(first, "convolutions.2", 1) + shortcut
    np.testing.assert_allclose(block(x).detach().numpy()[0], np.maximum(expected, 0), atol=1e-12)


def test_convolutions_start_as_he_et_al_have_it():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ConvTranspose2d(64, 8, 2))
    kept = layers[1].weight.clone()
    initialise(layers)
    # Standard deviation sqrt(2 / fan-out), fan-out 64 * 3 * 3.
    assert float(layers[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert torch.equal(layers[1].weight, kept)
