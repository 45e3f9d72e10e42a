"""`edgead.train`, `edgead.build` and `edgead.evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edgead
from edgead.errors import (
    DataError,
    EdgeadError,
    InputError,
    RunError,
)
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from edgead.training import start
from edgead.training.config import TrainConfig
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.parts_on_disk import SIZE_PX, write_parts
from tests.helpers.training_parts import TINY_TEACHER, write_images


@pytest.mark.parametrize(
    ("data", "options", "kind"),
    [
        ([], {}, InputError),
        (7, {}, InputError),
        (["good", 7], {}, InputError),
        ("gone", {}, DataError),
        ("good", {"epoch": 3}, InputError),
        ("good", {"epochs": "3"}, InputError),
        ("good", {"epochs": True}, InputError),
        ("good", {"method": ["rd"]}, InputError),
        ("good", {"method": "magic"}, InputError),
        ("good", {"alignment": "tilted"}, InputError),
        ("good", {"size": 100}, InputError),
    ],
)
def test_a_wrong_argument_of_train_is_one_line_and_leaves_nothing(
    data: Any,
    options: dict[str, Any],
    kind: type[EdgeadError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "good", 4)
    with pytest.raises(kind) as caught:
        edgead.train(data, "run", **{"accelerator": "cpu", **options})
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"epochs": 50, "batch_size": 4, "learning_rate": 5e-3, "alignment": "auto", "size": "256"}),
        (
            {"method": "stfpm", "preset": "paper", "epochs": 3},
            {"epochs": 3, "batch_size": 32, "learning_rate": 0.4},
        ),
        ({"size": 64, "learning_rate": 1, "epochs": None}, {"size": "64", "learning_rate": 1, "epochs": 50}),
        ({"size": "64x96", "alignment": "aligned"}, {"size": "64x96", "alignment": "aligned"}),
        (
            {"alignment": "unaligned", "training_precision": "bf16-mixed"},
            {"alignment": "unaligned", "training_precision": "bf16-mixed"},
        ),
        ({"teacher_weights": Path("w.pt"), "seed": 3}, {"teacher_weights": "w.pt", "seed": 3}),
    ],
)
def test_options_of_train_reach_the_training(
    options: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[TrainConfig, Path]] = []
    monkeypatch.setattr(start, "train_run", lambda config, out, *_: asked.append((config, out)))
    monkeypatch.chdir(tmp_path)
    for name in ("nuts", "bolts"):
        write_images(tmp_path / name, 2)
    edgead.train([Path("nuts"), "bolts"], "run", accelerator="cpu", **options)
    ((config, out),) = asked
    assert (config.data, out) == ((str(tmp_path / "nuts"), str(tmp_path / "bolts")), Path("run"))
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_collapsed_run_is_an_error_and_a_finished_one_is_loaded(tmp_path: Path) -> None:
    small = {
        "teacher": TINY_TEACHER,
        "teacher_weights": "random",
        "size": 64,
        "batch_size": 4,
        "accelerator": "cpu",
    }
    data = write_images(tmp_path / "data", 4)
    with pytest.raises(edgead.EdgeadError):
        edgead.train(data, tmp_path / "run", epochs=1, **small)
    with pytest.raises(RunError):
        edgead.load(tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "state": "finished"}))
    with edgead.load(tmp_path / "run") as model:
        assert model.predict(data / "000.png").anomaly_map.shape == (64, 64)
    with pytest.raises(InputError):
        edgead.load(tmp_path / "run", threads=1)
    with pytest.raises(InputError):  # a run knows its own images
        edgead.build(tmp_path / "run", tmp_path / "out", data=data)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16"},
        {"false_alarm_rate": 0.05},
        {"target": "toaster"},
        {"target": 7},
        {"precision": "fp7", "data": "parts"},
        {"colour": "red"},
        {"confidence": "high"},
        {"data": []},
    ],
)
def test_a_wrong_option_of_build_is_one_line_and_leaves_nothing(
    bundle: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        edgead.build(bundle, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_evaluate_returns_the_metrics_of_the_dataset(tmp_path: Path) -> None:
    size = ModelSize(SIZE_PX, SIZE_PX)
    path = write_brightness_bundle(tmp_path / "bundle", size, Threshold(0.2, 0.01, 0.95, 0.95, 299, 299))
    data = write_parts(tmp_path / "parts")
    found = edgead.evaluate(str(path), str(data), out=str(tmp_path / "report"))
    opened = edgead.open_bundle(str(path))
    with edgead.open_session(opened) as session:
        scores = score_dataset(session, edgead.open_dataset(str(data)).test, size)
    assert found == evaluate(scores, opened.manifest.thresholds["washer"])
    assert (found.good, found.defect, found.misses) == (3, 4, 2)
    assert (tmp_path / "report/report.html").is_file()
    for wrong in ({"part": "nut"}, {"part": 7}, {"layout": ["mvtec"]}):
        with pytest.raises(InputError):
            edgead.evaluate(path, data, **wrong)
    with pytest.raises(DataError):
        edgead.evaluate(path, write_images(tmp_path / "good", 2))
