"""A real training in its own process is killed and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers.training_parts import same_tensors, write_images

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "tests.helpers.training_script"]
EPOCHS = 4


def train(data: Path, out: Path, stop: str = "never") -> subprocess.CompletedProcess[str]:
    """Start the training; kill it when it waits at the point that `stop` names."""
    process = subprocess.Popen(
        [*TRAIN, str(data), str(out), str(EPOCHS), stop],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    with process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "standing still\n":
                process.send_signal(signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, "".join(lines), "")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the images and the weights of an uninterrupted training."""
    root = tmp_path_factory.mktemp("whole")
    data = write_images(root / "data")
    done = train(data, root / "run")
    assert done.returncode == 0, done.stdout
    return data, load_file(root / "run" / "model.safetensors")


@pytest.mark.parametrize(
    ("stop", "epoch"),
    [("batch 2.1", 2), ("rename run.json 0", None), ("rename checkpoint.pt 2", 2), ("rename run.json 1", 4)],
    ids=["in an epoch", "at the first record", "at a checkpoint", "at the last record"],
)
def test_a_killed_training_is_continued_to_the_same_weights(whole, tmp_path, stop, epoch):
    data, weights = whole
    killed = train(data, tmp_path / "run", stop)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    record = tmp_path / "run" / "run.json"
    assert record.exists() == (epoch is not None)
    if record.exists():
        assert json.loads(record.read_text())["state"] == "training"

    again = train(data, tmp_path / "run")

    assert again.returncode == 0, again.stdout
    assert "good images to train on" in again.stdout
    # A continued training logs the epoch that it continues after.
    lines = [line for line in again.stdout.splitlines() if f"{tmp_path / 'run'} after epoch" in line]
    assert [f"epoch {epoch} of {EPOCHS}" in line for line in lines] == ([] if epoch is None else [True])
    assert same_tensors(load_file(tmp_path / "run" / "model.safetensors"), weights)
    assert json.loads(record.read_text())["state"] in ("finished", "collapsed")
    left = sorted(entry.name for entry in (tmp_path / "run").iterdir())
    assert left == ["loss.png", "metrics.json", "model.safetensors", "run.json"]
