"""A training in closed form: it starts anew after an interruption, and refuses options of epochs and gradients."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgead.bundle import manifest
from edgead.data.synthetic.dataset import DEFECTS, add_defect, write_dataset
from edgead.errors import InputError, RunError
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.head import AnomalyMapHead
from edgead.models.linear import LinearReconstruction
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.training.closed_form import KINDS, fit_closed_form, score_gains
from edgead.training.folds import Folds, FoldStudents, IntArray
from edgead.training.loop import TrainingImages
from edgead.training.run import Run, open_run
from edgead.training.start import start_training
from edgead.training.training import train_run
from tests.helpers.training_parts import TINY_TEACHER, cpu, good_parts, same_tensors, tiny_config

TINY = {"method": "linear", "teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def washers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed_form") / "washers"
    write_dataset(folder, "washer", 40, 10, 10, size_px=64)
    return folder


@pytest.fixture(scope="module")
def run(washers: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start_training([washers], tmp_path_factory.mktemp("run") / "run", TINY)


def untrained() -> LinearReconstruction:
    torch.manual_seed(3)
    teacher = METHODS["linear"].create_teacher(TINY_TEACHER, "random")
    method = create_method("linear", teacher, ModelSize(64, 64), "squared-error").eval()
    assert isinstance(method, LinearReconstruction)
    return method


def unfolded(
    method: LinearReconstruction, images: torch.Tensor, held_out: int
) -> tuple[FoldStudents, IntArray]:
    """Students of images without folds, and the folds of held-out images."""
    folds = Folds.none(len(images), held_out)
    with torch.no_grad():
        return FoldStudents(method, images, folds.trained, 16), folds.held_out


def test_a_run_is_finished_after_one_pass(run: Run) -> None:
    config = run.record.config
    assert (config.epochs, config.training_precision) == (1, "32-true")
    assert run.summary["collapse"] is None
    assert run.summary["holdout_loss"] < 0.6 * run.summary["holdout_loss_before"]
    assert run.summary["holdout_loss_before"] == pytest.approx(1.0, abs=0.5)
    loaded = open_run(run.path).load_model()
    assert isinstance(loaded, LinearReconstruction)
    assert same_tensors(dict(loaded.state_dict()), load_file(run.path / "model.safetensors"))
    assert 1 <= loaded.kept.sum() < loaded.kept.numel()


class Interrupt(logging.Handler):
    """Presses Ctrl-C when the pass has begun."""

    def emit(self, record: logging.LogRecord) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_training_starts_anew_and_ends_alike(
    run: Run, washers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, logger, interrupt = tmp_path / "run", logging.getLogger("edgead.training.closed_form"), Interrupt()
    logger.addHandler(interrupt)
    with caplog.at_level(logging.INFO, logger.name), pytest.raises(KeyboardInterrupt):
        start_training([washers], out, TINY)
    logger.removeHandler(interrupt)
    assert [entry.name for entry in out.iterdir()] == ["run.json"]
    again = start_training([washers], out, TINY)
    assert again.thresholds == run.thresholds
    weights = (load_file(folder / "model.safetensors") for folder in (out, run.path))
    assert same_tensors(*weights)


def test_a_finished_run_is_of_its_options(run: Run, washers: Path) -> None:
    with pytest.raises(RunError):
        start_training([washers], run.path, {**TINY, "seed": 1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 1),
        ("learning_rate", 0.1),
        ("loss", "squared-error"),
        ("preset", "paper"),
        ("alignment", "aligned"),
        ("training_precision", "32-true"),
        ("devices", 2),
        ("nodes", 2),
    ],
)
def test_options_of_gradients_are_refused_before_any_work(option: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        start_training([tmp_path / "nothing"], tmp_path / "run", {**TINY, option: value})
    assert f"--{option.replace('_', '-')}" in refusal.value.hint
    assert list(tmp_path.iterdir()) == []


def test_more_images_than_a_bundle_can_list_are_refused_before_any_work(
    washers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MAX_RECORDED_IMAGES", 2)
    with pytest.raises(InputError):
        start_training([washers], tmp_path / "run", TINY)
    assert list(tmp_path.iterdir()) == []


def test_test_images_change_nothing(run: Run, washers: Path, tmp_path: Path) -> None:
    folder = tmp_path / washers.name
    shutil.copytree(washers / "train", folder / "train")
    shutil.copytree(washers / "test", folder / "test")
    rng = np.random.default_rng(3)
    for file in folder.glob("test/*/*.png"):
        shutil.copyfile(rng.choice(sorted((washers / "train/good").iterdir())), file)
    other = start_training([folder], tmp_path / "run", TINY)
    assert other.thresholds == run.thresholds
    weights = (load_file(path / "model.safetensors") for path in (other.path, run.path))
    assert same_tensors(*weights)


def test_the_kept_capacity_raises_the_score_of_drawn_defects_most() -> None:
    images = torch.from_numpy(good_parts(16))
    method = untrained()
    fit_closed_form(method, TrainingImages(images[:12], images[12:]), 4, 0, CPU)
    kept = method.kept.clone()
    students, none = unfolded(method, images[:12], 4)
    gains = score_gains(students, images[12:], none, 0)
    method.set_capacity(method.capacities[int(np.argmax(gains))])
    assert torch.equal(method.kept, kept)
    assert gains.max() > 0.0
    assert set(KINDS) < set(DEFECTS)


def test_gains_are_ratios_of_scores() -> None:
    """A score of the head for each capacity, from whole images."""
    images = torch.from_numpy(good_parts(16))
    method = untrained()
    students, none = unfolded(method, images, 1)
    with torch.no_grad():
        gains = score_gains(students, images[:1], none, 4)

    rng, head, image = np.random.default_rng(4), AnomalyMapHead(method.head, [(8, 8)]), images[0].numpy()
    shown = np.stack([image, *(add_defect(image, KINDS[number % 3], rng)[0] for number in range(60))])
    for capacity, gain in zip(method.capacities, gains, strict=True):
        method.set_capacity(capacity)
        with torch.no_grad():
            scores = head(*method.features(torch.from_numpy(shown)))[1].double().numpy()
        assert gain == pytest.approx(np.log(scores[1:] / scores[0]).mean(), rel=1e-2, abs=1e-3)


def test_its_graph_scores_as_it_does_in_both_precisions(run: Run) -> None:
    method = open_run(run.path).load_model()
    graph = onnx_from_method(method, run.size)
    images = good_parts(3)
    with run.session() as session:
        expected = session.infer(images)
    for model, tolerance in ((graph, 1e-5), (float16_from_float32(graph), 0.05)):
        with OnnxRuntimeSession(model.SerializeToString(), size=run.size) as session:
            found = session.infer(images)
        difference = np.abs(found.anomaly_map - expected.anomaly_map).max()
        assert difference <= tolerance * expected.anomaly_map.max()


def test_a_single_held_out_image_is_enough(tmp_path: Path, washers: Path) -> None:
    config = tiny_config(washers, method="linear", epochs=1, loss="squared-error", hold_out="1")
    run = train_run(config, tmp_path / "run", cpu())
    assert run.summary["collapse"] is None
    (part,) = run.record.parts.values()
    assert (part.train_images, len(part.holdout), part.ratios) == (39, 1, ())
    assert run.score_ratios == {}
