"""Candidates that a compiler refuses or that are slow on the GPU, on stand-ins for TensorRT's builder and runtime.

The builder runs in its own process, as in a real build, and its "engine" is the graph. The runtime runs this graph on
ONNX Runtime, so the decisions of every candidate are real; a clock of the test says how long each takes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from edgead.bundle import Bundle, open_bundle
from edgead.cli.build import _report
from edgead.engine.build import build_bundle
from edgead.engine.fidelity import Tolerance
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating, CandidatePrecision
from edgead.engine.rebuild import recompile_bundle
from edgead.engine.target import find_target
from edgead.errors import BackendError, GraphRefusedError, VerificationError
from edgead.export.head.model_file import file_from_graph
from edgead.runtime import timing
from edgead.runtime.tensorrt import cuda
from edgead.runtime.tensorrt import session as tensorrt
from edgead.runtime.tensorrt.library import load_library
from tests.fakes.cuda_driver import StandInDriver, stand_in_core
from tests.fakes.tensorrt_runtime import StandInTensorRT
from tests.helpers.graph_run import GraphRun
from tests.helpers.toy_graph import toy_graph

CONVOLUTIONS = ("Conv", "ConvTranspose")
INT8 = ["int8", "int8-sensitive-fp16", "int8-student"]
NAME, TARGET = find_target(None, "jetson-orin")
NOTHING = Tolerance(0.0, 0.0, 1.0, 0.0, 0.0)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInTensorRT]:
    """TensorRT 10.13 as the installed library, for this process and the worker, with a GPU."""
    library = tmp_path / "library"
    library.mkdir()
    shutil.copy(Path(__file__).parents[1] / "fakes" / "tensorrt_builder.py", library / "tensorrt.py")
    path = os.pathsep.join(filter(None, (str(library), os.environ.get("PYTHONPATH"))))
    for name, value in {
        "PYTHONPATH": path,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "FAKE_TENSORRT_VERSION": "10.13.0",
        "FAKE_TENSORRT_KEEPS_GRAPH": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(library))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    load_library.cache_clear()
    driver = StandInDriver()
    monkeypatch.setattr(cuda, "_library", lambda: (stand_in_core(driver, (8, 7)), driver, "13.5.0"))
    module = StandInTensorRT(driver, size=(32, 64), batch=(1, 1, 4))
    monkeypatch.setattr(tensorrt, "load_library", lambda backend: module.library())
    monkeypatch.setattr("edgead.engine.build.onnx_from_run", lambda run: run.graph)
    module.taken = Clock(monkeypatch, lambda graph: 5.0 - 0.1 * halves(graph))
    yield module
    load_library.cache_clear()
    sys.modules.pop("tensorrt", None)


def plan(folder: Path, *candidate_precisions: CandidatePrecision, **tolerances: Tolerance) -> Plan:
    target = replace(TARGET, tolerances=replace(TARGET.tolerances, **tolerances))
    calibrating = Calibrating(cache=folder / "calibration.json")
    return Plan(NAME, target, candidate_precisions or target.fallback_order, calibrating)


def tried(bundle: Bundle) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_bundle(bundle.path).manifest.verification["fallback_order"]
    return found


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "Could not find any implementation for node"),
        (
            {"FAKE_TENSORRT_COMPLAINT": "Error Code 2: OutOfMemory (Requested size was 12 bytes.)"},
            "OutOfMemory",
        ),
        ({"FAKE_TENSORRT_DIES": "SIGSEGV"}, "SIGSEGV"),
        ({"FAKE_TENSORRT_DIES": "SIGKILL"}, "SIGKILL"),
    ],
    ids=["no implementation", "memory", "crash", "killed"],
)
def test_a_candidate_that_the_compiler_refuses_is_recorded_and_the_next_is_tried(
    runtime: StandInTensorRT,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "QuantizeLinear")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8", "fp16", "fp32"))
    assert (bundle.manifest.precision, bundle.manifest.verified) == ("fp16", True)
    assert bundle.manifest.verification["candidate_precision"] == "fp16"
    first, second, _ = tried(bundle)
    assert (first["candidate_precision"], first["holds"]) == ("int8", False)
    assert reason in first["error"]
    assert "\n" not in first["error"]
    assert (second["candidate_precision"], second["holds"]) == ("fp16", True)
    assert reason in _report(bundle)[0]


def test_auto_on_a_compiler_without_int8_ends_at_float16(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "QuantizeLinear")
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder))
    assert (bundle.manifest.precision, bundle.manifest.verification["candidate_precision"]) == (
        "fp16",
        "fp16",
    )
    assert [(one["candidate_precision"], "error" in one) for one in tried(bundle)] == [
        *((name, True) for name in INT8),
        ("fp16", False),
        ("fp16-fp32-tail", False),
        ("fp32", False),
    ]


@pytest.mark.parametrize("death", ["", "SIGABRT"])
def test_the_only_candidate_that_is_refused_ends_the_build_in_one_line(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "QuantizeLinear")
    monkeypatch.setenv("FAKE_TENSORRT_DIES", death)
    with pytest.raises(GraphRefusedError) as refusal:
        build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8"))
    assert refusal.value.exit_code == 1
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "x").exists()


def test_candidates_that_are_all_refused_end_the_build_with_the_last_reason(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "Conv")
    with pytest.raises(GraphRefusedError) as refusal:
        build_bundle(GraphRun(), tmp_path / "x", plan(folder, "fp16", "fp32"))
    assert "fp16, fp32" in refusal.value.what
    assert "Could not find any implementation" in refusal.value.what
    assert not (tmp_path / "x").exists()


def test_candidates_that_are_refused_or_differ_are_outside_the_tolerance(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "QuantizeLinear")
    with pytest.raises(VerificationError):
        build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8", "fp16", fp16=NOTHING))


@pytest.mark.parametrize(
    "environment",
    [
        {"FAKE_TENSORRT_NO_DRIVER": "1"},
        {"FAKE_TENSORRT_COMPLAINT": "CUDA initialization failure with error: 35"},
        {"FAKE_TENSORRT_COMPLAINT": "could not write the file (No space left on device)"},
        {"FAKE_TENSORRT_DIES": "SIGTERM"},
    ],
    ids=["no driver", "driver too old", "full disk", "stopped"],
)
def test_a_machine_that_cannot_build_ends_the_build_at_once(
    runtime: StandInTensorRT,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    # Float16 would be accepted, and nobody tries it.
    for name, value in ({"FAKE_TENSORRT_REFUSES": "QuantizeLinear"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendError) as error:
        build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8", "fp16"))
    assert not isinstance(error.value, GraphRefusedError)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def halves(graph: onnx.ModelProto) -> int:
    """Number of float16 constants."""
    return [weight.data_type for weight in graph.graph.initializer].count(TensorProto.FLOAT16)


class Clock:
    """A clock that moves only while a graph runs, by the milliseconds that the test sets, and lags once in a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ms_of: Callable[[onnx.ModelProto], float]) -> None:
        self._now, self._calls, self._ms_of = 0.0, 0, ms_of
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self._now))

    def __call__(self, graph: onnx.ModelProto) -> None:
        self._calls += 1
        self._now += 1e-3 * self._ms_of(graph) * (50 if self._calls % 7 == 0 else 1)


@pytest.mark.parametrize(("fp16_ms", "fp32_ms", "kept"), [(2.0, 3.0, "fp16"), (3.0, 2.0, "fp32")])
def test_of_the_candidates_that_hold_the_fastest_on_the_gpu_is_kept(
    runtime: StandInTensorRT,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fp16_ms: float,
    fp32_ms: float,
    kept: str,
) -> None:
    runtime.taken = Clock(monkeypatch, lambda graph: fp16_ms if halves(graph) else fp32_ms)
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, "fp16", "fp32"))
    assert (bundle.manifest.precision, bundle.manifest.verification["candidate_precision"]) == (kept, kept)
    assert [(one["candidate_precision"], one["holds"], one["p50_ms"]) for one in tried(bundle)] == [
        ("fp16", True, pytest.approx(fp16_ms)),
        ("fp32", True, pytest.approx(fp32_ms)),
    ]
    # The engine of the bundle is the engine of the kept candidate.
    engine = bundle.file("model.engine").read_bytes().removeprefix(b"engine")
    assert bool(halves(onnx.load_from_string(engine))) == (kept == "fp16")
    assert [line.split()[1].rstrip(",") for line in _report(bundle)[:2]] == [
        "kept" if name == kept else "slower" for name in ("fp16", "fp32")
    ]


def test_a_fast_candidate_that_does_not_hold_is_not_timed(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.taken = Clock(monkeypatch, lambda graph: 1.0 if halves(graph) else 5.0)
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, "fp16", "fp32", fp16=NOTHING))
    assert bundle.manifest.precision == "fp32"
    assert [(one["holds"], one.get("p50_ms")) for one in tried(bundle)] == [
        (False, None),
        (True, pytest.approx(5.0)),
    ]


@pytest.mark.parametrize(("version", "opset", "half"), [("10.13.0", 19, True), ("8.6.1", 18, False)])
def test_int8_is_beside_float16_where_the_parser_takes_it(
    runtime: StandInTensorRT,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    opset: int,
    half: bool,
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", version)
    if version == "8.6.1":
        older = StandInTensorRT(runtime.driver, "8.6", runtime.size, runtime.batch)
        monkeypatch.setattr(tensorrt, "load_library", lambda backend: older.library())
    bundle = build_bundle(GraphRun(), tmp_path / "x", plan(folder, "int8"))
    assert (bundle.manifest.precision, bundle.manifest.verified) == ("int8", True)
    model = onnx.load_from_string(bundle.file("model.onnx").read_bytes())
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
    values = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    found = {types[node.output[0]] for node in model.graph.node if node.op_type in CONVOLUTIONS}
    # TensorRT 8.6 gets float32 and the permission to compute it in float16.
    assert found == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}


def test_a_bundle_whose_graph_is_refused_is_not_compiled(
    runtime: StandInTensorRT, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = build_bundle(GraphRun(graph=file_from_graph(toy_graph())), tmp_path / "exact")
    assert recompile_bundle(exact, tmp_path / "x", plan(folder, "fp32")).manifest.verified
    monkeypatch.setenv("FAKE_TENSORRT_REFUSES", "Conv")
    with pytest.raises(GraphRefusedError):
        recompile_bundle(exact, tmp_path / "y", plan(folder, "fp32"))
