"""A real training in its own process is killed and started again."""

import json
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.helpers.processes import start_process
from tests.helpers.training_parts import same_tensors, write_images
from tests.helpers.training_script import train_and_stand_still

EPOCHS = 4


def train(data: Path, out: Path, stop: str = "never") -> tuple[int | None, str]:
    """Start the training and kill it when it waits at the point that `stop` names; return exit code and output."""
    output = out.with_suffix(".log")
    output.write_text("")
    process = start_process(train_and_stand_still, data, out, EPOCHS, stop, output=output)
    while process.is_alive():
        if "standing still\n" in output.read_text():
            process.kill()
        process.join(0.05)
    return process.exitcode, output.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the images and the weights of an uninterrupted training."""
    root = tmp_path_factory.mktemp("whole")
    data = write_images(root / "data")
    code, printed = train(data, root / "run")
    assert code == 0, printed
    return data, load_file(root / "run" / "model.safetensors")


@pytest.mark.parametrize(
    ("stop", "epoch"),
    [("batch 2.1", 2), ("rename run.json 0", None), ("rename checkpoint.pt 2", 2), ("rename run.json 1", 4)],
    ids=["in an epoch", "at the first record", "at a checkpoint", "at the last record"],
)
def test_a_killed_training_is_continued_to_the_same_weights(whole, tmp_path, stop, epoch):
    data, weights = whole
    code, printed = train(data, tmp_path / "run", stop)
    assert code == -signal.SIGKILL, printed
    record = tmp_path / "run" / "run.json"
    assert record.exists() == (epoch is not None)
    if record.exists():
        assert json.loads(record.read_text())["state"] == "training"

    code, printed = train(data, tmp_path / "run")

    assert code == 0, printed
    assert "good images to train on" in printed
    # A continued training logs the epoch that it continues after.
    lines = [line for line in printed.splitlines() if f"{tmp_path / 'run'} after epoch" in line]
    assert [f"epoch {epoch} of {EPOCHS}" in line for line in lines] == ([] if epoch is None else [True])
    assert same_tensors(load_file(tmp_path / "run" / "model.safetensors"), weights)
    assert json.loads(record.read_text())["state"] in ("finished", "collapsed")
    left = sorted(entry.name for entry in (tmp_path / "run").iterdir())
    assert left == ["loss.png", "metrics.csv", "metrics.json", "model.safetensors", "run.json"]
