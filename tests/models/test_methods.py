"""What every method must be: of matching shapes, trained without its teacher, exported as it scores, divisible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edgead.errors import InputError, TrainingError
from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.anomaly_map import bilinear_matrix, gaussian_matrix
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, hyperparameters_of
from edgead.models.base import PRESETS, STANDARD_VARIANT, DistillationMethod
from edgead.models.components.teacher import Backbone
from edgead.training.schedule import Schedule, check_training
from edgead.types import Float64Array
from tests.helpers.training_parts import good_parts

SIZE = ModelSize(64, 96)

# timm's networks for tests. A slim student takes no squeeze-and-excitation, which the EfficientNet among them has.
TINY = {name: "test_resnet" if name == "stfpm-slim" else "test_efficientnet" for name in METHODS}


def made(name: str, teacher: str, size: ModelSize = SIZE, preset: str = "edge") -> DistillationMethod:
    """name: of a method, and of a variant behind a colon."""
    torch.manual_seed(3)
    name, _, variant = name.partition(":")
    method = create_method(
        name,
        METHODS[name].create_teacher(teacher, "random"),
        size,
        hyperparameters_of(name, preset).loss,
        preset=preset,  # type: ignore[arg-type]
        variant=variant or STANDARD_VARIANT,
    )
    # Statistics that are not the identity, as training leaves them.
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return method


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("teacher", ["tf_efficientnet_lite0", "resnet18"])
def test_the_head_gets_pairs_of_one_shape(name: str, teacher: str) -> None:
    method = made(name, teacher).eval()
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        frozen, student = method.features(images)
    assert [x.shape for x in frozen] == [x.shape for x in student]
    assert [x.shape[2:] for x in frozen] == [(16, 24), (8, 12), (4, 6), *[(16, 24)] * (name == "rstpm+")]


def error_of(attempt: Callable[[], None], kind: type[Exception]) -> str | None:
    """Return the text of the error that a function raises, None if it raises none."""
    try:
        attempt()
    except kind as error:
        return str(error)
    return None


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("name", list(METHODS))
def test_a_batch_of_one_image_is_trained_or_refused_before_it_begins(name: str, size: int) -> None:
    method = made(name, TINY[name], ModelSize(size, size))
    image = torch.from_numpy(good_parts(1, size))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    drawn = torch.get_rng_state()
    refusal = error_of(lambda: check_training(method, Schedule(10, 1, 0.005, 0), image, 1), TrainingError)
    assert refusal is None or f"{size}x{size}" in refusal
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    method.train()
    features = method.teacher_features(image)

    def every_stage() -> None:
        for stage in range(len(method.hyperparameters.stages)):
            method.enter_stage(stage)
            assert method(image, features).isfinite()

    # PyTorch refuses one value per channel.
    assert (refusal is None) == (error_of(every_stage, ValueError) is None)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_few_steps_lower_the_loss_and_leave_the_teacher(name: str) -> None:
    method = made(name, TINY[name], ModelSize(64, 64)).train()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    images = torch.from_numpy(good_parts(4))
    features = method.teacher_features(images)
    optimizer = method.optimizer(method.hyperparameters.learning_rate / 20)
    losses = []
    for _ in range(5):
        loss = method(images, features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[2] < losses[0]
    trained = {key for key, parameter in method.named_parameters() if parameter.requires_grad}
    assert trained
    for key, value in method.state_dict().items():
        if key.startswith("teacher.") or key in trained:
            assert torch.equal(value, before[key]) == key.startswith("teacher."), key
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in method.trained()}


def cosine_distance(a: Float64Array, b: Float64Array) -> Float64Array:
    return 1.0 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def joined(method: DistillationMethod, maps: list[Float64Array]) -> Float64Array:
    """Maps (N, H_k, W_k) of all scales resized, joined and smoothed: (N, H, W)."""
    head = method.head
    large = [
        bilinear_matrix(head.height, x.shape[1], True) @ x @ bilinear_matrix(head.width, x.shape[2], True).T
        for x in maps
    ]
    fused = np.sum(large, axis=0) if head.fusion == "add" else np.prod(large, axis=0)
    return gaussian_matrix(head.height, head.sigma) @ fused @ gaussian_matrix(head.width, head.sigma).T


def one_student(teacher: list[Float64Array], student: list[Float64Array]) -> list[Float64Array]:
    return [cosine_distance(t, s) for t, s in zip(teacher, student, strict=True)]


def three_students(teacher: list[Float64Array], students: list[Float64Array]) -> list[Float64Array]:
    """Equations 7 and 8 of the thesis as they stand there; half of it, which is what the head is given."""
    maps = []
    for k, features in enumerate(teacher):
        t = features / np.linalg.norm(features, axis=1, keepdims=True)
        unit = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in students[k::3]]
        assert len(unit) == 3
        error = 0.5 * np.linalg.norm(t - np.mean(unit, axis=0), axis=1) ** 2
        variance = np.linalg.norm(np.std(unit, axis=0), axis=1) ** 2
        maps.append((error + variance) / 2.0)
    return maps


def two_pairs(teacher: list[Float64Array], student: list[Float64Array]) -> list[Float64Array]:
    """Equation 1 of RSTPM without its last factor; half of each sum."""
    second = teacher[4:] if len(teacher) > 4 else teacher[:3]
    first = one_student(teacher[:3], student[:3])
    return [(a + b) / 2.0 for a, b in zip(first, one_student(second, student[3:]), strict=True)]


PUBLISHED: dict[str, Callable[[list[Float64Array], list[Float64Array]], list[Float64Array]]] = {
    "rd++": one_student,
    "stfpm": one_student,
    "stfpm-slim": one_student,
    "stfpm-ensemble": three_students,
    "rstpm": two_pairs,
    "rstpm:direct": two_pairs,
    "rstpm:deep": two_pairs,
}


def make_images() -> np.ndarray:
    """A random image and two drawn ones."""
    drawn = np.concatenate([good_parts(2), good_parts(2)], axis=2)[:, :, :96]
    noise = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    return np.concatenate([noise, drawn])


@pytest.fixture(scope="module", params=list(PUBLISHED))
def exported(request: pytest.FixtureRequest) -> tuple[str, DistillationMethod, ModelProto]:
    method = made(request.param, TINY[request.param.partition(":")[0]]).eval()
    return request.param, method, onnx_from_method(method, SIZE)


def scores(graph: ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


def test_the_graph_gives_the_published_map(exported: tuple[str, DistillationMethod, ModelProto]) -> None:
    name, method, graph = exported
    images = make_images()
    with torch.no_grad():
        teacher = method.teacher_features(torch.from_numpy(images))
        student = method.student_features(torch.from_numpy(images), teacher)
    expected = joined(
        method, PUBLISHED[name]([x.double().numpy() for x in teacher], [x.double().numpy() for x in student])
    )
    anomaly_map, anomaly_score = scores(graph, images)
    assert expected.max() > 0.01
    np.testing.assert_allclose(anomaly_map[:, 0], expected, rtol=0.0, atol=1e-5)
    np.testing.assert_allclose(anomaly_score, expected.max((1, 2)), rtol=0.0, atol=1e-5)


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules())


def test_the_graph_is_divided_between_teacher_and_student(
    exported: tuple[str, DistillationMethod, ModelProto],
) -> None:
    name, method, graph = exported
    sections = sections_of(graph)
    counted = [i for i, node in enumerate(graph.graph.node) if node.op_type in CONVOLUTIONS]
    in_teacher = [i for i in counted if i in sections.teacher]
    # What its three features need, and nothing of a student; the layers below them that a student starts from are the
    # student's.
    assert len(in_teacher) == convolutions(Backbone(TINY[name.partition(":")[0]], trimmed=True))
    assert len([i for i in counted if i in sections.student]) == len(counted) - len(in_teacher)
    trained = sum(convolutions(module) for key, module in method.named_children() if key != "teacher")
    assert len(counted) - len(in_teacher) >= trained > 0
    assert [node.op_type for node in graph.graph.node if "images" in node.input] == ["Cast"]


def test_half_precision_keeps_the_map(exported: tuple[str, DistillationMethod, ModelProto]) -> None:
    _, _, graph = exported
    images = make_images()
    expected, found = scores(graph, images)[0], scores(float16_from_float32(graph), images)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=0.02 * float(expected.max()))


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("preset", PRESETS)
def test_a_hyperparameters_is_one_that_can_be_followed(name: str, preset: str) -> None:
    hyperparameters = hyperparameters_of(name, preset)
    assert hyperparameters.loss in METHODS[name].losses
    parameter = nn.Parameter(torch.zeros(1))
    method = METHODS[name].__new__(METHODS[name])
    nn.Module.__init__(method)
    method.hyperparameters = hyperparameters
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": 0.1}], lr=0.2, momentum=0.9)
    scheduler = method.scheduler(optimizer, 20)
    rates = []
    for _ in range(20):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    if hyperparameters.schedule == "constant":
        assert rates == [0.1] * 20
    else:
        assert max(rates) == pytest.approx(0.1, rel=0.05)
        assert rates[-1] < 1e-3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError) as method:
        hyperparameters_of("magic", "edge")
    with pytest.raises(InputError) as preset:
        hyperparameters_of("rd", "fast")
    teacher = METHODS["stfpm"].create_teacher("test_resnet", "random")
    with pytest.raises(InputError) as loss:
        create_method("stfpm", teacher, SIZE, "flattened")
    for refusal, value, option in (
        (method, "'magic'", f"--method {' or '.join(METHODS)}"),
        (preset, "'fast'", "--preset edge or paper"),
        (loss, "'flattened'", "--loss per-position"),
    ):
        assert value in refusal.value.what
        assert refusal.value.hint.endswith(option)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_shows_what_it_trains_on_beside_good_images(name: str) -> None:
    method = made(name, TINY[name], ModelSize(64, 64))
    good = good_parts(6)
    shown = method.disturbed(good.copy(), np.random.default_rng(5))
    assert (shown is None) == (not method.uses_textures and name != "rd++")
    if shown is not None:
        make_images, masks = shown
        assert (make_images.dtype, masks.dtype) == (np.uint8, np.bool_)
        np.testing.assert_array_equal(masks, (make_images != good).any(axis=3))
        assert masks.any(axis=(1, 2)).all()
        assert not masks.all(axis=(1, 2)).any()


@pytest.mark.parametrize(
    ("name", "stage"),
    [(name, stage) for name in METHODS for stage in range(len(hyperparameters_of(name, "edge").stages))],
)
def test_chance_is_for_training_alone(name: str, stage: int) -> None:
    """Held-out images are judged alike each time; what training draws comes from torch's generator."""
    method = made(name, TINY[name], ModelSize(64, 64))
    method.enter_stage(stage)
    images = torch.from_numpy(good_parts(4))
    features = method.teacher_features(images)
    for layer in method.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0

    def loss_from(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return method(images, features)

    method.eval()
    assert loss_from(1) == loss_from(2)
    method.train()
    one, other, again = loss_from(1), loss_from(2), loss_from(1)
    assert one == again
    assert (one != other) == ((name, stage) in {("rd++", 0), ("rstpm+", 1), ("uninformed-students", 0)})
