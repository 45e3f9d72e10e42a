"""An update of a run with new images: what is new, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

import edgead
from edgead.data import open_dataset
from edgead.errors import DataError, InputError, RunError
from edgead.training.changes import Changes
from edgead.training.run import open_run, write_record
from edgead.training.update import divide
from tests.helpers.command_line import run_main
from tests.helpers.training_parts import TINY_TEACHER, good_parts, same_tensors, watched, write_images

SMALL = {
    "method": "stfpm",
    "epochs": 10,
    "teacher": TINY_TEACHER,
    "teacher_weights": "random",
    "size": 64,
    "batch_size": 4,
    "hold_out": 0.2,
}


def add_brighter(folder: Path, count: int = 5) -> None:
    """Add images of another shift: brighter by 40 levels."""
    for number, image in enumerate(good_parts(count)):
        assert cv2.imwrite(
            str(folder / f"new{number}.png"), np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8)
        )


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> edgead.Run:
    root = tmp_path_factory.mktemp("update")
    return edgead.train(write_images(root / "parts", 10), root / "old", **SMALL)


@pytest.fixture(scope="module")
def updated(old, tmp_path_factory) -> tuple[Path, edgead.Run]:
    """Images with new ones, and the run of an update that nothing interrupts."""
    root = tmp_path_factory.mktemp("updated")
    data = Path(shutil.copytree(old.record.config.data[0], root / "parts"))
    add_brighter(data)
    return data, edgead.train(data, root / "whole", base=old.path)


@pytest.fixture
def data(old, tmp_path) -> Path:
    return Path(shutil.copytree(old.record.config.data[0], tmp_path / "parts"))


def test_an_update_keeps_the_old_run_and_the_side_of_its_images(old, data, tmp_path, caplog):
    before = content_of(old.path)
    add_brighter(data)
    (data / "000.png").rename(data / "renamed.png")
    with caplog.at_level("INFO"):
        new = edgead.train(data, tmp_path / "new", base=old.path)
    assert content_of(old.path) == before
    assert "5 new images" in caplog.text
    assert new.record.config.epochs == 2
    assert new.record.config.learning_rate == pytest.approx(old.record.config.learning_rate / 5)
    assert new.record.config.size == "64"
    known = old.record.parts["parts"]
    part = new.record.parts["parts"]
    assert len(part.files) == 15
    held_before = {known.files[name] for name in known.holdout}
    held = {part.files[name] for name in part.holdout}
    assert held_before <= held
    assert not (held - held_before) & set(known.files.values())
    # It began with the old weights, so the loss of its first epoch is far below the one of an untrained student.
    (first, *_) = json.loads((new.path / "metrics.json").read_text())
    assert first["holdout_loss"] < old.summary["holdout_loss_before"] / 2
    assert edgead.train(data, tmp_path / "new", base=old.path).record == new.record


def test_the_same_command_on_changed_data_tells_the_change(tmp_path, caplog):
    data = write_images(tmp_path / "parts", 10)
    run = edgead.train(data, tmp_path / "run", **SMALL)
    caplog.clear()
    edgead.train(data, tmp_path / "run", **SMALL)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    add_brighter(data, 3)
    (data / "001.png").unlink()
    again = edgead.train(data, tmp_path / "run", **SMALL)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert {"3", "1", "--from", "(001.png)"} <= set(warning.getMessage().replace(";", "").split())
    assert again.record == run.record


def test_changes_are_named_by_content():
    old = {"a": "1", "b": "2", "c": "3", "d": "4"}
    # b has another name, c other content; d is gone, and e is new.
    changes = Changes.between(old, {"a": "1", "B": "2", "c": "5", "e": "6"})
    assert changes == Changes(added=("e",), removed=("d",), changed=("c",))
    assert str(Changes.between(old, {**old, "x": "1"})) == ""


def test_a_skipped_broken_file_is_no_change(tmp_path, caplog):
    data = write_images(tmp_path / "parts", 10)
    (data / "broken.png").write_bytes((data / "000.png").read_bytes()[:200])
    for _ in range(2):
        caplog.clear()
        run = edgead.train(data, tmp_path / "run", skip_broken=True, **SMALL)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert run.summary["broken_images"] == 1
    with pytest.raises(DataError):
        edgead.train(data, tmp_path / "new", base=run.path)


def test_a_dataset_without_new_images_is_refused(old, data, tmp_path):
    with pytest.raises(DataError):
        edgead.train(data, tmp_path / "new", base=old.path)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_images_of_another_size_are_refused(old, data, tmp_path):
    cv2.imwrite(str(data / "large.png"), np.full((80, 64, 3), 99, np.uint8))
    with pytest.raises(DataError) as caught:
        edgead.train(data, tmp_path / "new", base=old.path)
    assert "64x64" in str(caught.value)


def test_options_of_the_run_are_not_changed(old, data, tmp_path):
    add_brighter(data)
    # The last three are defaults of a training, which the run of tiny images does not have.
    changes = (
        {"size": 128},
        {"roi": "0,0,32,32"},
        {"method": "rstpm"},
        {"tile": 64},
        {"size": 256},
        {"seed": 1},
    )
    for options in (*changes, {"teacher_weights": "package"}):
        with pytest.raises(InputError):
            edgead.train(data, tmp_path / "new", base=old.path, **options)
    with pytest.raises(InputError):
        edgead.train(data, old.path, base=old.path)
    other = Path(shutil.copytree(data, tmp_path / "others"))
    with pytest.raises(InputError):
        edgead.train(other, tmp_path / "new", base=old.path)
    with pytest.raises(RunError):
        edgead.train(data, tmp_path / "new", base=tmp_path / "nothing")


def test_the_command_line_gives_an_update_only_what_it_names(old, data, tmp_path):
    add_brighter(data)
    line = [
        "train",
        str(data),
        "--out",
        str(tmp_path / "new"),
        "--from",
        str(old.path),
        "--accelerator",
        "cpu",
        "--early-stop",
        "5",
    ]
    # A default of the command, which the run does not have.
    assert run_main(*line, "--size", "256") == 1
    assert run_main(*line) == 0
    new, before = open_run(tmp_path / "new").record.config, old.record.config
    assert (new.early_stop, before.early_stop) == (5, None)
    assert (new.size, new.method, new.teacher, new.seed) == (
        before.size,
        before.method,
        before.teacher,
        before.seed,
    )


def test_new_images_are_divided_as_the_old_ones(old, data):
    add_brighter(data)
    record = open_run(old.path).record
    division = divide(open_dataset(data), record.parts["parts"], 0)
    assert len(division.trained) + len(division.held_out) == 15
    assert len(division.held_out) == 2 + 1


def test_an_update_without_the_old_held_out_images_holds_new_ones_out(old, data):
    record = old.record.parts["parts"]
    for name in record.holdout:
        (data / name).unlink()
    add_brighter(data, 1)
    division = divide(open_dataset(data), record, 0)
    assert [sample.path.name for sample in division.held_out] == ["new0.png"]
    for file in data.iterdir():
        if file.name != "new0.png":
            file.unlink()
    with pytest.raises(DataError):
        divide(open_dataset(data), record, 0)


def test_the_log_of_an_update_counts_its_own_held_out_images(old, data, tmp_path, caplog):
    add_brighter(data)
    with caplog.at_level("INFO"):
        edgead.train(data, tmp_path / "new", base=old.path)
    (budget,) = [line for line in caplog.messages if "support a false-alarm rate" in line]
    assert "3 held-out images" in budget


def test_an_update_of_linear_fits_all_images_anew(data, tmp_path, caplog):
    options = {"teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64, "method": "linear"}
    first = edgead.train(data, tmp_path / "first", **options)
    add_brighter(data)
    with caplog.at_level("INFO"):
        update = edgead.train(data, tmp_path / "update", base=first.path)
    (new,) = [line for line in caplog.messages if "5 new images" in line]
    assert "cross-fitted" in new
    assert "held out" not in new
    anew = edgead.train(data, tmp_path / "anew", **options)
    assert update.thresholds == anew.thresholds
    assert same_tensors(dict(update.load_model().state_dict()), dict(anew.load_model().state_dict()))


def test_a_defect_among_the_new_images_is_named(tmp_path, caplog):
    data = write_images(tmp_path / "parts", 24)
    options = {"teacher": TINY_TEACHER, "teacher_weights": "random", "size": 64, "method": "linear"}
    first = edgead.train(data, tmp_path / "first", **options)
    broken = good_parts(30)[29].copy()
    broken[10:50, 10:50] = 255 - broken[10:50, 10:50]
    assert cv2.imwrite(str(data / "broken.png"), broken)
    caplog.clear()
    update = edgead.train(data, tmp_path / "update", base=first.path)
    (named,) = [record for record in caplog.records if "broken.png" in record.getMessage()]
    assert named.levelname == "WARNING"
    # The second highest score would be the threshold without it.
    scores = sorted(read_scores(update))
    assert update.thresholds["parts"].value == pytest.approx(scores[-1])
    assert f"{scores[-2]:.4g}" in named.getMessage()


def read_scores(run: edgead.Run) -> list[float]:
    """Cross-fitted scores of a run of one part: scores of its model, multiplied by the recorded ratios."""
    (loaded,) = run.holdout_images().values()
    (ratios,) = run.score_ratios.values()
    with run.session() as session:
        found = [session.infer(image[None]).anomaly_score[0] for image in np.asarray(loaded.images)]
    return [float(score) * ratio for score, ratio in zip(found, ratios, strict=True)]


class StoppedError(Exception):
    """Ends a training in the middle, as a kill does: nothing is written any more."""


@pytest.mark.parametrize("moment", ["first record", "first epoch", "second epoch", "last record"])
def test_an_update_that_was_killed_ends_with_the_same_weights(old, updated, tmp_path, monkeypatch, moment):
    data, whole = updated
    before, records = content_of(old.path), count(1)

    def killed(state) -> None:
        if moment == ("first epoch", "second epoch")[state.epoch]:
            raise StoppedError

    def no_record(*given) -> None:
        if moment == ("first record", "last record")[next(records) - 1]:
            raise StoppedError
        write_record(*given)

    with monkeypatch.context() as patch:
        patch.setattr("edgead.training.checkpoint.time.monotonic", count(0, 60).__next__)
        patch.setattr("edgead.training.training.write_record", no_record)
        patch.setattr("edgead.training.finish.write_record", no_record)
        with watched(killed), pytest.raises(StoppedError):
            edgead.train(data, tmp_path / "new", base=old.path)
    assert content_of(old.path) == before
    new = edgead.train(data, tmp_path / "new", base=old.path)
    assert content_of(old.path) == before
    assert new.thresholds == whole.thresholds
    assert same_tensors(
        load_file(new.path / "model.safetensors"), load_file(whole.path / "model.safetensors")
    )
