"""More epochs for a finished run, an end before the last epoch, and the figures of each epoch as a table."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from safetensors.torch import load_file

from edgead.errors import InputError, RunError
from edgead.models import METHODS
from edgead.training import resume
from edgead.training.run import open_run, read_record
from edgead.training.schedule import stops_early
from edgead.training.training import train_run
from tests.helpers.training_parts import (
    Staged,
    Template,
    cpu,
    same_tensors,
    tiny_config,
    watched,
    write_images,
)


class StoppedError(Exception):
    """Ends a training in the middle, as a kill does: nothing is written any more."""


@pytest.fixture(scope="module", autouse=True)
def small_methods():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "template", Template)
        patch.setitem(METHODS, "staged", Staged)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture(scope="module")
def config(images):
    return tiny_config(images, method="template", epochs=4, learning_rate=0.05)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    """A finished run of 4 epochs."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train_run(config, out, cpu())
    return out


@pytest.fixture(scope="module")
def extended(config, finished, tmp_path_factory) -> Path:
    """The same run with 6 epochs."""
    out = Path(shutil.copytree(finished, tmp_path_factory.mktemp("extended") / "run"))
    train_run(replace(config, epochs=6), out, cpu())
    return out


@pytest.fixture
def out(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def weights(out: Path):
    return load_file(out / "model.safetensors")


def content(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def epochs(out: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((out / "metrics.json").read_text())
    return rows


def test_more_epochs_extend_a_finished_run(config, finished, extended):
    first, rows, run = epochs(finished), epochs(extended), open_run(extended)
    assert rows[:4] == first
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert (run.record.begun, run.record.config.epochs, run.summary["epochs"]) == (4, 6, 6)
    assert not same_tensors(weights(extended), weights(finished))
    assert rows[-1]["holdout_loss"] < first[-1]["holdout_loss"]
    # A new cycle, with a fifth of the peak.
    assert max(row["learning_rate"] for row in rows[4:]) <= config.learning_rate / 5
    # The untrained student still shows whether anything was learnt.
    before = open_run(finished).summary["holdout_loss_before"]
    assert run.summary["holdout_loss_before"] == before
    assert train_run(replace(config, epochs=6), extended, cpu()) == run


class OtherProcess:
    """Fabric as the second of two processes has it, up to the first time that it waits for the first."""

    is_global_zero = False
    world_size = 2

    def barrier(self) -> None:
        raise StoppedError


@pytest.mark.parametrize("broken", [None, "metrics.json", "model.safetensors"])
def test_every_process_of_an_extension_finds_a_broken_run_before_it_waits(config, out, broken):
    """If only the first found it, the others would wait for it without end."""
    if broken:
        (out / broken).write_bytes(b"{")
    before = content(out)
    with pytest.raises(RunError if broken else StoppedError):
        train_run(replace(config, epochs=6), out, OtherProcess())  # type: ignore[arg-type]
    assert content(out) == before


def test_two_processes_end_with_the_error_of_a_broken_run(finished, tmp_path):
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / "metrics.json").write_text("{")
    script = tmp_path / "extend.py"
    script.write_text(
        "from pathlib import Path\nfrom dataclasses import replace\n"
        "from edgead.models import METHODS\nfrom edgead.training.fabric import FabricConfig, create_fabric\n"
        "from edgead.training.run import read_record\nfrom edgead.training.training import train_run\n"
        "from edgead.errors import RunError\nfrom tests.helpers.training_parts import Template\n"
        f"METHODS['template'] = Template\nout = Path({str(out)!r})\n"
        "fabric, _ = create_fabric(FabricConfig('cpu', devices=2), None)\n"
        "try:\n    train_run(replace(read_record(out).config, epochs=6), out, fabric)\n"
        "except RunError as error:\n    print(f'refused by {fabric.global_rank}\\n', end='', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300
    )
    assert {line for line in done.stdout.splitlines() if line.startswith("refused")} == {
        "refused by 0",
        "refused by 1",
    }, done.stderr


@pytest.mark.parametrize("epoch", [None, 4, 5])
def test_an_extension_that_was_killed_is_continued_to_the_same_weights(
    config, out, extended, monkeypatch, epoch
):
    """Killed before its record is written, in its first epoch, and in its second one."""
    longer = replace(config, epochs=6)

    def killed(state) -> None:
        if state.epoch == epoch:
            raise StoppedError

    def no_record(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("edgead.training.checkpoint.time.monotonic", count(0, 60).__next__)
        if epoch is None:
            patch.setattr(resume, "write_record", no_record)
        with watched(killed), pytest.raises(StoppedError):
            train_run(longer, out, cpu())
    record = read_record(out)
    assert record is not None
    # Until the record is written, the finished run is there as it was.
    assert record.state == ("finished" if epoch is None else "training")
    train_run(longer, out, cpu())
    assert same_tensors(weights(out), weights(extended))


def test_what_cannot_be_extended_is_refused(config, images, out, tmp_path):
    before = content(out)
    with pytest.raises(RunError) as fewer:
        train_run(replace(config, epochs=3), out, cpu())
    assert "4" in fewer.value.what
    assert "3" in fewer.value.what
    assert "--epochs" in fewer.value.hint
    with pytest.raises(RunError):
        train_run(replace(config, epochs=6, seed=1), out, cpu())
    assert content(out) == before
    staged = tiny_config(images, method="staged", epochs=2)
    resume.write_record(tmp_path / "staged", replace(open_run(out).record, config=staged))
    with pytest.raises(InputError) as stages:
        train_run(replace(staged, epochs=4), tmp_path / "staged", cpu())
    assert "2 stages" in stages.value.what


def test_images_that_changed_are_named_before_an_extension(config, out, images):
    before, file = content(out), images / "003.png"
    kept = file.read_bytes()
    file.write_bytes((images / "004.png").read_bytes())
    try:
        with pytest.raises(RunError) as caught:
            train_run(replace(config, epochs=6), out, cpu())
    finally:
        file.write_bytes(kept)
    assert "003.png" in caught.value.what
    assert content(out) == before


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.4], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.4, 0.45, 0.39], 2, False),
        ([0.5, 0.4, 0.45, 0.4], 2, True),
        ([0.4, 0.5, 0.5], 3, False),
        ([0.4, 0.5, 0.5, 0.5], 3, True),
        ([0.4, 0.5, 0.5, 0.5], None, False),
    ],
)
def test_a_training_ends_when_no_loss_of_the_last_epochs_is_lower(losses, patience, stops):
    assert stops_early(losses, patience) is stops


def test_a_training_that_ends_early_says_where_and_ends_there_again(config, tmp_path, monkeypatch):
    # A rate so high that the loss soon rises and falls.
    config = replace(config, epochs=40, learning_rate=1.0, preset="paper", early_stop=2)
    run = train_run(config, tmp_path / "run", cpu())
    rows = epochs(run.path)
    stopped = len(rows)
    assert stopped < 40
    assert run.summary["epochs"] == stopped
    losses = [row["holdout_loss"] for row in rows]
    assert [n for n in range(1, stopped + 1) if stops_early(losses[:n], 2)] == [stopped]
    # Killed after the checkpoint of the last epoch, before the files of the run are written.
    with monkeypatch.context() as patch:
        patch.setattr("edgead.training.training.finish_run", None)
        patch.setattr("edgead.training.checkpoint.time.monotonic", count(0, 60).__next__)
        with pytest.raises(TypeError):
            train_run(config, tmp_path / "killed", cpu())
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    train_run(config, tmp_path / "killed", cpu())
    assert len(epochs(tmp_path / "killed")) == stopped
    assert same_tensors(weights(tmp_path / "killed"), weights(run.path))


def test_an_early_end_needs_epochs_of_one_stage(images, tmp_path):
    with pytest.raises(InputError) as stages:
        train_run(tiny_config(images, method="staged", epochs=4, early_stop=2), tmp_path / "run", cpu())
    assert "--early-stop" in stages.value.what
    assert not (tmp_path / "run").exists()


def test_the_table_of_a_run_has_the_figures_of_its_json(finished):
    with (finished / "metrics.csv").open(newline="") as stream:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    assert rows == epochs(finished)
