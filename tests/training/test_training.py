import contextlib
import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from edgead.errors import (
    CollapseError,
    DataError,
    EdgeadError,
    ImageError,
    InputError,
    RunError,
    TeacherError,
)
from edgead.models import METHODS
from edgead.training.fabric import FabricConfig, create_fabric
from edgead.training.run import Run, open_run, read_record
from edgead.training.session import TorchSession
from edgead.training.training import train_run
from tests.helpers.training_parts import (
    Constant,
    Template,
    cpu,
    same_tensors,
    tiny_config,
    write_images,
)

FILES = ["loss.png", "metrics.csv", "metrics.json", "model.safetensors", "run.json"]


@pytest.fixture(autouse=True)
def small_methods(monkeypatch):
    monkeypatch.setitem(METHODS, "template", Template)
    monkeypatch.setitem(METHODS, "constant", Constant)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture
def config(images):
    return tiny_config(
        images, method="template", teacher="tf_efficientnet_lite0", teacher_weights="package", epochs=8
    )


def train(config, out) -> Run:
    return train_run(config, out, cpu())


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_a_run_holds_everything_that_a_build_needs(config, tmp_path, caplog):
    caplog.set_level("INFO")
    run = train(config, tmp_path / "run")

    assert names(tmp_path / "run") == FILES
    assert any("11 good images" in line and "1 held out" in line for line in caplog.messages)
    assert cv2.imread(str(tmp_path / "run" / "loss.png")).shape == (480, 840, 3)
    opened = open_run(tmp_path / "run")
    assert opened == run
    assert opened.summary["collapse"] is None
    assert opened.summary["broken_images"] == 0
    assert opened.summary["holdout_loss"] < opened.summary["holdout_loss_before"]
    (part,) = opened.record.parts.values()
    assert len(part.holdout) == 1

    (holdout,) = opened.holdout_images().values()
    assert [sample.path.name for sample in holdout.samples] == list(part.holdout)
    score = opened.session().infer(holdout.images).anomaly_score
    assert part.threshold is not None
    assert part.threshold.value == pytest.approx(float(score[0]), rel=1e-5)
    assert part.threshold.n_normal == 1
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert same_tensors(dict(opened.load_model().state_dict()), weights)
    assert any(key.startswith("teacher.") for key in weights)


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
def test_a_run_is_loaded_with_the_alignment_it_was_trained_with(images, tmp_path, alignment):
    # The test needs only the student's tensors, so the collapse of so short a training is no failure here.
    with contextlib.suppress(CollapseError):
        train(tiny_config(images, alignment=alignment, epochs=1), tmp_path)
    record = read_record(tmp_path)
    assert record is not None
    assert record.alignment == alignment
    weights = load_file(tmp_path / "model.safetensors")
    assert same_tensors(dict(Run(tmp_path, record).load_model().state_dict()), weights)


@pytest.mark.parametrize("method", ["rd++", "stfpm", "stfpm-ensemble", "rstpm", "uninformed-students"])
def test_a_run_of_each_method_is_loaded_as_it_was_trained(images, tmp_path, method):
    config = tiny_config(images, method=method, preset="paper", loss="per-position", epochs=2)
    with contextlib.suppress(CollapseError):
        train(config, tmp_path)
    record = read_record(tmp_path)
    assert record is not None
    assert record.config == config
    loaded = Run(tmp_path, record).load_model()
    assert same_tensors(dict(loaded.state_dict()), load_file(tmp_path / "model.safetensors"))
    assert loaded.head.sigma == METHODS[method].presets["paper"].sigma
    # The publications add the scales as they are.
    assert loaded.head.weights == ()
    (part,) = record.parts.values()
    (holdout,) = Run(tmp_path, record).holdout_images().values()
    assert part.threshold is not None
    score = TorchSession(loaded).infer(holdout.images).anomaly_score
    assert part.threshold.value == pytest.approx(float(score[0]), rel=1e-5)


def test_images_of_12_bits_train_as_the_same_images_of_8_bits(config, images, tmp_path, caplog):
    deep = tmp_path / images.name
    deep.mkdir()
    for file in images.iterdir():
        values = cv2.imread(str(file)).astype(np.float64) * (4095 / 255)
        assert cv2.imwrite(str(deep / f"{file.stem}.png"), np.rint(values).astype(np.uint16))
    short = replace(config, epochs=1)
    run = train(replace(short, data=(str(deep),), bit_depth=12), tmp_path / "deep")
    assert run.bit_depth == open_run(tmp_path / "deep").bit_depth == 12
    assert run.thresholds == train(short, tmp_path / "plain").thresholds
    (held_out,) = run.holdout_images().values()
    assert held_out.images.max() > 100
    assert run.training_images(4).images.max() > 100
    assert not any("--bit-depth" in line for line in caplog.messages)


def test_dark_images_and_files_left_out_are_named_before_the_training(config, images, tmp_path, caplog):
    dark = tmp_path / images.name
    dark.mkdir()
    for file in images.iterdir():
        assert cv2.imwrite(str(dark / file.name), cv2.imread(str(file)) // 16)
    (dark / "more.heic").write_bytes(b"no image")
    with contextlib.suppress(CollapseError):
        train(replace(config, epochs=1, data=(str(dark),)), tmp_path / "run")
    of_depth = [line for line in caplog.messages if "--bit-depth" in line]
    of_suffix = [line for line in caplog.messages if "1 .heic" in line]
    assert len(of_depth) == len(of_suffix) == 1
    assert str(dark) in of_depth[0]


def test_a_finished_run_is_left_alone(config, tmp_path, monkeypatch, caplog):
    train(config, tmp_path / "run")
    before = {
        file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in (tmp_path / "run").iterdir()
    }
    caplog.set_level("INFO")
    caplog.clear()

    def not_wanted(*_: object) -> None:
        pytest.fail("a finished run decodes no image")

    monkeypatch.setattr("edgead.training.images.load_images", not_wanted)
    again = train_run(config, tmp_path / "run", cpu())

    assert again == open_run(tmp_path / "run")
    (line,) = caplog.messages
    assert str(tmp_path / "run") in line
    assert before == {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in (tmp_path / "run").iterdir()}


def test_another_configuration_is_refused(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(RunError) as caught:
        train(replace(config, learning_rate=0.01), tmp_path / "run")
    assert "learning rate 0.005" in caught.value.what
    assert "0.01" in caught.value.what
    assert "--out" in caught.value.hint


def begun(config, out, monkeypatch) -> None:
    """Start a run and stop it after its first record."""
    import edgead.training.training as training

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    assert names(out) == ["run.json"]


def test_a_begun_run_is_continued(config, tmp_path, monkeypatch, caplog):
    begun(config, tmp_path / "run", monkeypatch)
    with pytest.raises(RunError) as caught:
        open_run(tmp_path / "run")
    assert "edgead train" in caught.value.hint
    caplog.set_level("INFO")
    train(config, tmp_path / "run")
    assert any(str(tmp_path / "run") in line and "epoch 0 of 8" in line for line in caplog.messages)
    assert names(tmp_path / "run") == FILES


def test_changed_images_are_refused(config, tmp_path, monkeypatch):
    data = write_images(tmp_path / "data", 12)
    config = replace(config, data=(str(data),))
    begun(config, tmp_path / "run", monkeypatch)
    write_images(tmp_path / "data", 13)
    with pytest.raises(RunError) as caught:
        train(config, tmp_path / "run")
    assert str(data) in caught.value.what
    assert "012.png" in caught.value.what
    assert str(tmp_path / "run") in caught.value.what
    assert "--out" in caught.value.hint


def test_a_student_that_learns_nothing_is_a_collapse(config, tmp_path):
    config = replace(config, method="constant")
    with pytest.raises(CollapseError) as collapsed:
        train(config, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.state == "collapsed"
    # The constant student's loss is 1 at each of three scales, before and after the training.
    reason = record.summary["collapse"]
    assert reason.count(" 3 ") == 2
    assert reason in collapsed.value.what
    with pytest.raises(RunError) as opening:
        open_run(tmp_path / "run")
    assert reason in opening.value.what
    with pytest.raises(RunError) as training_again:
        train(config, tmp_path / "run")
    assert reason in training_again.value.what
    assert "--out" in training_again.value.hint


def test_an_untrained_student_is_a_collapse(config, tmp_path):
    with pytest.raises(CollapseError):
        train(replace(config, epochs=1, learning_rate=1e-9), tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert record is not None
    # Not because the score sees no defects, which the reason would give as a share in percent.
    assert f"{record.summary['holdout_loss']:.4g}" in record.summary["collapse"]


def test_broken_images_are_named_or_skipped_and_counted(config, tmp_path, caplog):
    data = write_images(tmp_path / "data", 12)
    (data / "note.png").write_text("this is no image")
    config = replace(config, data=(str(data),))
    with pytest.raises(ImageError) as caught:
        train(config, tmp_path / "run")
    assert str(data / "note.png") in str(caught.value)
    assert "--skip-broken" in str(caught.value)
    assert not (tmp_path / "run").exists()

    run = train(replace(config, skip_broken=True), tmp_path / "run")
    assert run.summary["broken_images"] == 1
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "note.png" in warning.getMessage()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(config, tmp_path, count):
    data = write_images(tmp_path / "data", count)
    with pytest.raises(DataError) as caught:
        train(replace(config, data=(str(data),)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert str(data) in str(caught.value)
    # One image can be trained on, and then there is none for the threshold.
    assert ("threshold" in str(caught.value)) == (count == 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "value"),
    [
        ({"method": "magic"}, InputError, "'magic'"),
        ({"method": "rd", "loss": "mse"}, InputError, "'mse'"),
        ({"teacher": "resnet19"}, TeacherError, "'resnet19'"),
        ({"teacher_weights": "none.pt"}, TeacherError, "none.pt"),
        ({"layout": "tree"}, EdgeadError, "tree"),
        ({"data": ("/nowhere",)}, DataError, "/nowhere"),
    ],
)
def test_a_wrong_value_leaves_nothing_behind(config, tmp_path, changes, kind, value):
    with pytest.raises(kind) as caught:
        train(replace(config, **changes), tmp_path / "run")
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_out_must_be_a_directory_of_a_run(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        train(config, tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)
    with pytest.raises(InputError) as caught:
        train(config, tmp_path)
    assert str(tmp_path) in caught.value.what
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("content", [None, b"not weights"])
def test_a_run_without_its_weights_does_not_load(config, tmp_path, content):
    run = train(config, tmp_path / "run")
    if content is None:
        (tmp_path / "run" / "model.safetensors").unlink()
    else:
        (tmp_path / "run" / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError) as caught:
        run.session()
    assert str(tmp_path / "run" / "model.safetensors") in caught.value.what


def test_a_full_disk_ends_in_one_line_and_a_run_to_continue(config, tmp_path):
    """A file system of 1 MiB has no room for the 3 MiB of the teacher's and the student's weights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        with pytest.raises(EdgeadError) as caught:
            train(config, disk / "run")
        assert str(disk / "run" / "model.safetensors") in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert names(disk / "run") == ["run.json"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        train(config, disk / "run")
        assert names(disk / "run") == FILES
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_mixed_precision_trains(config, tmp_path):
    fabric, precision = create_fabric(FabricConfig("cpu"), "bf16-mixed")
    run = train_run(replace(config, training_precision=precision), tmp_path / "run", fabric)
    assert np.isfinite(run.summary["loss"])
    assert {str(x.dtype) for x in run.load_model().parameters()} == {"torch.float32"}
