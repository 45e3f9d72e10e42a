"""Ctrl-C, SIGTERM and SIGHUP: one line, exit code 128 and the signal, and finished work is kept."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from edgead.cli.main import main
from edgead.cli.progress import ProgressDisplay
from edgead.files.progress import TrainingState, state_of
from edgead.training.checkpoint import read_checkpoint
from edgead.training.run import CHECKPOINT_FILE, WEIGHTS_FILE, read_record
from tests.helpers.command_line import files_in
from tests.helpers.interrupted_command import WORK, work_interrupted
from tests.helpers.processes import start_process
from tests.helpers.training_parts import TINY_TEACHER, same_tensors, write_images

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", WORK)
def test_any_command_prints_one_line_and_exits_with_128_and_the_signal(
    command, number, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", 2)
    before = files_in(tmp_path)
    said = tmp_path / "said"
    process = start_process(work_interrupted, int(number), command, output=said)
    process.join()
    assert process.exitcode == 128 + number
    lines = said.read_text().splitlines()
    said.unlink()
    assert [line for line in lines if line.startswith("interrupted: ")] == lines[-1:]
    assert not any("Traceback" in line for line in lines)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_the_caller_ignores_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    code = "import sys; from tests.helpers.interrupted_command import *; work_interrupted(int(sys.argv[1]), 'doctor')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (7, "")


def train_watched(arguments, interrupt_at, number):
    """Run `edgead train`; send a signal in the second of the four batches of an epoch."""
    emit = ProgressDisplay.emit

    def watched(self, record):
        emit(self, record)
        state = state_of(record)
        if isinstance(state, TrainingState) and (state.epoch, round(state.share * 4)) == (interrupt_at, 2):
            os.kill(os.getpid(), number)

    ProgressDisplay.emit = watched
    sys.argv = ["edgead", "train", *arguments]
    main()


def train(data, out, *, interrupt_at=None, number=signal.SIGINT):
    """Train four epochs of four batches; return the exit code and what was printed."""
    options = ["--method", "stfpm", "--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64"]
    machine = ["--epochs", "4", "--batch-size", "2", "--hold-out", "1", "--accelerator", "cpu"]
    said = out.with_suffix(".txt")
    arguments = [str(data), "--out", str(out), *options, *machine]
    process = start_process(train_watched, arguments, interrupt_at, number, output=said)
    process.join(170)
    return process.exitcode, said.read_text()


def test_a_training_keeps_its_last_finished_epoch(tmp_path):
    data, out = write_images(tmp_path / "data", 9), tmp_path / "run"
    code, said = train(data, out, interrupt_at=2, number=signal.SIGHUP)
    assert code == 129, said
    last = said.splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert str(out) in last
    checkpoint = read_checkpoint(out / CHECKPOINT_FILE)
    assert checkpoint is not None
    assert checkpoint.epoch == 2
    assert [row["epoch"] for row in checkpoint.metrics] == [1, 2]
    # Such a short training may collapse, which does not matter here.
    assert train(data, out)[0] in (0, 4)
    assert train(data, tmp_path / "whole")[0] in (0, 4)
    assert same_tensors(load_file(out / WEIGHTS_FILE), load_file(tmp_path / "whole" / WEIGHTS_FILE))
    assert not (out / CHECKPOINT_FILE).exists()


def test_before_the_first_epoch_there_is_nothing_to_keep(tmp_path):
    data, out = write_images(tmp_path / "data", 9), tmp_path / "run"
    assert train(data, out, interrupt_at=0)[0] == 130
    assert not (out / CHECKPOINT_FILE).exists()
    record = read_record(out)
    assert record is not None
    assert record.state == "training"


def test_a_kept_checkpoint_is_not_changed_by_the_next_epoch(tmp_path):
    from edgead.training.checkpoint import Checkpoint, CheckpointKeeper

    weights = torch.zeros(3)
    state = {"state": {0: {"step": weights}}, "groups": [{"lr": 0.1}]}
    keeper = CheckpointKeeper(tmp_path / "c.pt", every_s=1000.0)
    keeper.keep(Checkpoint(1, "", {"w": weights}, state, {}, {}, [], []))
    weights += 1.0
    with pytest.raises(KeyboardInterrupt), keeper:
        raise KeyboardInterrupt
    kept = read_checkpoint(tmp_path / "c.pt")
    assert kept is not None
    assert torch.equal(kept.student["w"], torch.zeros(3))
    assert torch.equal(kept.optimizer["state"][0]["step"], torch.zeros(3))
