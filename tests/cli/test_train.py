"""`edgead train` through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgead.cli.train import train
from edgead.errors import DataError, InputError, MissingExtraError
from edgead.models import METHODS
from edgead.training.config import TrainConfig
from edgead.training.run import open_run
from tests.helpers.training_parts import TINY_TEACHER, Template, write_images

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train)
RUNNER = CliRunner()


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", 12)


@pytest.mark.parametrize(
    ("options", "hyperparameters"),
    [
        ([], (50, 4, 5e-3, "hard-positions")),
        (["--preset", "paper"], (200, 16, 5e-3, "per-position")),
        (["--preset", "paper", "--method", "stfpm"], (100, 32, 0.4, "per-position")),
        (["--preset", "paper", "--method", "stfpm", "--epochs", "3"], (3, 32, 0.4, "per-position")),
        (["--loss", "flattened", "--learning-rate", "0.1"], (50, 4, 0.1, "flattened")),
        (["--batch-size", "2"], (50, 2, 5e-3, "hard-positions")),
    ],
)
def test_the_preset_gives_the_missing_options(data, monkeypatch, options, hyperparameters):
    asked: list[TrainConfig] = []
    monkeypatch.setattr("edgead.training.start.train_run", lambda config, *_: asked.append(config))
    RUNNER.invoke(app, [str(data), "--out", "run", *options], catch_exceptions=False)
    (config,) = asked
    assert (config.epochs, config.batch_size, config.learning_rate, config.loss) == hyperparameters
    assert config.preset == ("paper" if "paper" in options else "edge")


def test_a_folder_becomes_a_run_and_the_run_stays(data, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "stfpm", Template)
    monkeypatch.chdir(tmp_path)
    options = [
        "--method",
        "stfpm",
        "--size",
        "64",
        "--epochs",
        "8",
        "--batch-size",
        "4",
        "--accelerator",
        "cpu",
    ]
    done = RUNNER.invoke(app, ["data", "--out", "run", *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert any({"data", "8", "4"} <= set(line.split()) for line in done.stderr.splitlines())
    assert "epoch 8/8  loss " in done.stderr
    assert done.stderr.splitlines()[-1] == "run in run"
    config = open_run(tmp_path / "run").record.config
    assert (config.data, config.method, config.size, config.epochs) == ((str(data),), "stfpm", "64", 8)
    assert config.training_precision == "32-true"

    again = RUNNER.invoke(app, ["data", "--out", "run", *options], catch_exceptions=False)
    assert again.exit_code == 0
    assert "run" in again.stderr.splitlines()[-1]
    assert "epoch 8/8" not in again.stderr


@pytest.mark.parametrize(
    ("options", "kind", "value"),
    [
        (["--size", "100"], InputError, "100"),
        (["--seed", "-1"], InputError, "-1"),
        (["--variant", "deep"], InputError, "'deep'"),
        (["--method", "stfpm", "--loss", "flattened"], InputError, "'flattened'"),
        (["--layout", "mvtec"], DataError, "data"),
    ],
)
def test_a_wrong_option_is_an_error_and_leaves_nothing(data, tmp_path, options, kind, value):
    with pytest.raises(kind) as caught:
        RUNNER.invoke(app, [str(data), "--out", str(tmp_path / "run"), *options], catch_exceptions=False)
    assert value in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_training_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "edgead.training.start")  # so that it is imported again
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtraError) as caught:
        RUNNER.invoke(app, ["data", "--out", "run"], catch_exceptions=False)
    assert "lightning_fabric" in caught.value.what
    assert caught.value.hint == "pip install 'edgead[train]'"


def test_two_processes_train_one_run(data, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import typer\nfrom edgead.cli.train import train\nfrom edgead.errors import CollapseError\n"
        "app = typer.Typer(pretty_exceptions_enable=False)\napp.command()(train)\n"
        "try:\n    app()\nexcept CollapseError as error:\n    print(error)\n"
    )
    options = ["--teacher", TINY_TEACHER, "--teacher-weights", "random", "--size", "64", "--epochs", "4"]
    machine = ["--batch-size", "3", "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run(
        [sys.executable, str(script), str(data), "--out", str(tmp_path / "run"), *options, *machine],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    # Only one process prints.
    assert sum({"data", "8", "4"} <= set(line.split()) for line in done.stderr.splitlines()) == 1
    metrics = json.loads(Path(tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics) == 4
    assert metrics[-1]["loss"] < metrics[0]["loss"]
