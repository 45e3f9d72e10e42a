"""`edgead build` on a real run directory with random weights and few images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgead.bundle import open_bundle
from edgead.cli.build import build
from edgead.errors import DataError, InputError, RunError
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.training.config import TrainConfig
from edgead.training.records import PartRecord, RunRecord
from edgead.training.run import WEIGHTS_FILE, write_record

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

app = typer.Typer()
app.command()(build)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, run = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(str(data / f"{i}.png"), rng.integers(0, 256, (70, 90, 3), np.uint8))
    config = TrainConfig(
        data=(str(data),), teacher="resnet18", teacher_weights="random", size="64", false_alarm_rate=0.05
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method("rd", create_teacher("resnet18", "random"), ModelSize(64, 64), config.loss)
    save_file(method.state_dict(), run / WEIGHTS_FILE)
    parts = {data.name: PartRecord(9, ("0.png", "1.png", "2.png"))}
    write_record(run, RunRecord(config, "finished", parts, "unaligned", (), {"epochs": 1}))
    return run


def test_a_run_becomes_a_bundle(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, [str(run), "--out", str(tmp_path / "x"), "--false-alarm-rate", "0.02"], catch_exceptions=False
    )
    assert result.exit_code == 0
    manifest = open_bundle(tmp_path / "x").manifest
    assert (manifest.method, manifest.teacher, str(manifest.size)) == ("rd", "resnet18", "64x64")
    (threshold,) = manifest.thresholds.values()
    assert threshold.n_normal == 3
    assert threshold.false_alarm_rate == 0.02
    assert re.search(r"decision flips +0 +<= 0\n", result.stdout)
    assert f"{threshold.value:.4g}" in result.stdout
    # log(0.05) / log(0.98) = 148.3: 149 images are enough for this rate.
    assert " 149 " in result.stderr


def test_a_precision_is_built_and_its_table_printed(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, [str(run), "--out", str(tmp_path / "half"), "--precision", "fp16"], catch_exceptions=False
    )
    assert result.exit_code == 0
    manifest = open_bundle(tmp_path / "half").manifest
    assert manifest.precision == "fp16"
    # Without --false-alarm-rate it is the rate of the run, in a lower precision too.
    assert [threshold.false_alarm_rate for threshold in manifest.thresholds.values()] == [0.05]
    assert "verified     fp16 for cpu against onnxruntime fp32, 6 images" in result.stdout
    assert re.search(r"rank correlation +[01][.0-9]* +>= 0.99\n", result.stdout)


def test_int8_needs_images_to_calibrate_on(run: Path, tmp_path: Path) -> None:
    # All three images were held out.
    with pytest.raises(DataError) as caught:
        CliRunner().invoke(
            app, [str(run), "--out", str(tmp_path / "x"), "--precision", "int8"], catch_exceptions=False
        )
    assert " 0 " in f"{caught.value} "
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused_with_its_value(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError) as missing:
        CliRunner().invoke(
            app, [str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")], catch_exceptions=False
        )
    assert str(tmp_path / "nowhere") in str(missing.value)
    (tmp_path / "model.onnx").write_bytes(b"a graph from elsewhere")
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(
            app, [str(tmp_path / "model.onnx"), "--out", str(tmp_path / "x")], catch_exceptions=False
        )
    assert str(tmp_path / "model.onnx") in str(caught.value)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(
            app, [str(run), "--out", str(tmp_path / "x"), "--false-alarm-rate", "7"], catch_exceptions=False
        )
    assert "0.01" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


WITHOUT = """
import sys
from pathlib import Path
sys.modules[sys.argv[1]] = None
from edgead.cli.build import build
from edgead.errors import MissingExtraError
try:
    build(Path(sys.argv[2]), Path(sys.argv[3]))
except MissingExtraError as error:
    print(error.what, error.hint, sep="\\n")
"""


@pytest.mark.parametrize("missing", ["torch", "onnxsim"])
def test_a_missing_training_package_is_named_with_its_extra(missing: str, run: Path, tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, str(run), str(tmp_path / "x")],
        check=True,
        capture_output=True,
        text=True,
    )
    what, hint = refused.stdout.splitlines()
    assert {"build", missing} <= set(what.replace(",", "").split())
    assert hint == "pip install 'edgead[train]'"
    assert list(tmp_path.iterdir()) == []
