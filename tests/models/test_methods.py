"""What every method must be: of matching shapes, trained without its teacher, drawing chance for training alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgead.errors import InputError, TrainingError
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, hyperparameters_of
from edgead.models.base import PRESETS
from edgead.training.schedule import Schedule, check_training
from tests.helpers.tiny_methods import TINY, made
from tests.helpers.training_parts import good_parts


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("teacher", ["tf_efficientnet_lite0", "resnet18"])
def test_the_head_gets_pairs_of_one_shape(name: str, teacher: str) -> None:
    method = made(name, teacher).eval()
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        frozen, student = method.features(images)
    assert [x.shape for x in frozen] == [x.shape for x in student]
    sizes = [(16, 24), (8, 12), (4, 6), *[(16, 24)] * (name == "rstpm+")]
    single = {"linear": [(8, 12)], "efficientad": [(16, 24)]}
    assert [x.shape[2:] for x in frozen] == single.get(name, sizes)


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


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if not kind.closed_form])
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
        create_method("stfpm", teacher, ModelSize(64, 96), "flattened")
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
    drawing = {("rd++", 0), ("rstpm+", 1), ("uninformed-students", 0), ("efficientad", 0), ("efficientad", 1)}
    assert (one != other) == ((name, stage) in drawing)
