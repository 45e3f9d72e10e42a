"""Ctrl-C, SIGTERM and SIGHUP: one line, exit code 128 and the signal, and finished work is kept."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from edgead.training.checkpoint import read_checkpoint
from edgead.training.run import CHECKPOINT_FILE, WEIGHTS_FILE, read_record
from tests.helpers.command_line import files_in
from tests.helpers.training_parts import TINY_TEACHER, same_tensors, write_images

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

# The module that a command imports, and the function in it that is interrupted.
WORK = {
    "train": ("edgead.training.training", "train_run", ["data", "--out", "out"]),
    "import": ("edgead.importers.run", "import_run", ["x.ckpt", "--data", "data", "--out", "out"]),
    "build": ("edgead.engine.plan", "find_target", ["run", "--out", "out"]),
    "calibrate": ("edgead.files.atomic", "restore_directory", ["run", "--out", "out"]),
    "info": ("edgead.files.atomic", "restore_directory", ["run"]),
    "eval": ("edgead.data", "open_dataset", ["run", "data"]),
    "compare": ("edgead.comparison.grid", "plan_grid", ["data", "--methods", "rd", "--out", "out"]),
    "stream": ("edgead.bundle", "open_bundle", ["run", "--source", "0"]),
    "demo": ("edgead.demo.run", "run_demo", []),
    "doctor": ("edgead.cli.diagnosis", "diagnose", []),
}
INTERRUPTED = """
import importlib, os, signal, sys
number, module, function, *arguments = sys.argv[1:]
def work(*_, **__):
    try:
        os.kill(os.getpid(), int(number))
    finally:
        # timeout(1), and a terminal that closes, send it twice.
        os.kill(os.getpid(), int(number))
    sys.exit(7)
setattr(importlib.import_module(module), function, work)
sys.argv = ["edgead", *arguments]
from edgead.cli.main import main
main()
"""


@pytest.mark.parametrize("command", WORK)
def test_any_command_prints_one_line_and_exits_130(command, tmp_path):
    check_end_by(signal.SIGINT, command, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_a_command_in_the_same_way(number, tmp_path):
    check_end_by(number, "build", tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_the_caller_ignores_stays_ignored(number, tmp_path):
    signal.signal(number, signal.SIG_IGN)
    done = interrupted_by(number, "doctor", tmp_path)
    assert (done.returncode, done.stderr) == (7, "")
    check_end_by(signal.SIGTERM, "build", tmp_path)


def check_end_by(number, command, tmp_path):
    """Send a signal to a command while it works; check its end and its files."""
    write_images(tmp_path / "data", 2)
    before = files_in(tmp_path)
    done = interrupted_by(number, command, tmp_path)
    assert done.returncode == 128 + number, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("interrupted: ")] == lines[-1:]
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == before


def interrupted_by(number, command, tmp_path):
    """Run a command that sends a signal to itself; it exits with 7 if the signal does not end it."""
    module, function, arguments = WORK[command]
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(int(number)), module, function, command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )


def train(data, out, *, interrupt_at=None, number=signal.SIGINT):
    """Train four epochs of four batches; send a signal in the second batch of an epoch."""
    code = (
        "import os, signal, sys\n"
        "from edgead.cli.progress import ProgressDisplay\n"
        "from edgead.files.progress import TrainingState, state_of\n"
        "emit = ProgressDisplay.emit\n"
        "at = sys.argv.pop()\n"
        "def watched(self, record):\n"
        "    emit(self, record)\n"
        "    state = state_of(record)\n"
        "    if isinstance(state, TrainingState) and (state.epoch, round(state.share * 4)) == (int(at), 2):\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "ProgressDisplay.emit = watched\n"
        "from edgead.cli.main import main\n"
        "main()\n"
    )
    options = ["--method", "stfpm", "--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64"]
    machine = ["--epochs", "4", "--batch-size", "2", "--accelerator", "cpu"]
    at = "-1" if interrupt_at is None else str(interrupt_at)
    return subprocess.run(
        [sys.executable, "-c", code, "train", str(data), "--out", str(out), *options, *machine, at],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def test_a_training_keeps_its_last_finished_epoch(tmp_path):
    data, out = write_images(tmp_path / "data", 9), tmp_path / "run"
    interrupted = train(data, out, interrupt_at=2, number=signal.SIGHUP)
    assert interrupted.returncode == 129, interrupted.stderr
    last = interrupted.stderr.splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert str(out) in last
    checkpoint = read_checkpoint(out / CHECKPOINT_FILE)
    assert checkpoint is not None
    assert checkpoint.epoch == 2
    assert [row["epoch"] for row in checkpoint.metrics] == [1, 2]
    # Such a short training may collapse, which does not matter here.
    assert train(data, out).returncode in (0, 4)
    assert train(data, tmp_path / "whole").returncode in (0, 4)
    assert same_tensors(load_file(out / WEIGHTS_FILE), load_file(tmp_path / "whole" / WEIGHTS_FILE))
    assert not (out / CHECKPOINT_FILE).exists()


def test_before_the_first_epoch_there_is_nothing_to_keep(tmp_path):
    data, out = write_images(tmp_path / "data", 9), tmp_path / "run"
    assert train(data, out, interrupt_at=0).returncode == 130
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
