"""Tests that need an NVIDIA GPU; without one they are skipped, with the reason.

With EDGEAD_REQUIRE_GPU=1, as in `make test-gpu`, that skip is a failure, and so is a run whose tests need engines and
opened none, as where the installed TensorRT does not build for this GPU. They run with each installed TensorRT.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import BuiltEngine, build_engine
from edgead.errors import BackendError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.tensorrt.cuda import Gpu
from edgead.runtime.tensorrt.library import load_library
from edgead.runtime.tensorrt.session import TensorRTSession

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NEEDS_GPU = "needs an NVIDIA GPU"
REBUILD = "edgead build"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.skipped and os.environ.get("EDGEAD_REQUIRE_GPU") == "1":
        reason = str(report.longrepr)
        if NEEDS_GPU in reason:
            report.outcome, report.longrepr = "failed", f"EDGEAD_REQUIRE_GPU=1: {reason}"
    return report


NEEDS_ENGINES = pytest.StashKey[bool]()
OPENED = pytest.StashKey[list[Path]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[NEEDS_ENGINES] = any("build" in item.fixturenames for item in session.items)


def no_engine_was_opened(config: pytest.Config) -> bool:
    return (
        os.environ.get("EDGEAD_REQUIRE_GPU") == "1"
        and not config.option.collectonly
        and config.stash.get(NEEDS_ENGINES, False)
        and not config.stash.get(OPENED, [])
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if no_engine_was_opened(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if no_engine_was_opened(config):
        terminalreporter.line("EDGEAD_REQUIRE_GPU=1: no test opened an engine", red=True)


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    try:
        return Gpu()
    except BackendError as error:
        pytest.skip(f"{NEEDS_GPU}: {error}")


@pytest.fixture(scope="session", params=MODULES)
def backend(request, gpu) -> str:
    """Each backend whose library is installed and builds for this GPU."""
    if all(importlib.util.find_spec(module) is None for module in MODULES.values()):
        pytest.skip(f"{NEEDS_GPU} and TensorRT or TensorRT for RTX: neither is installed")
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{MODULES[request.param]} is not installed")
    library = load_library(request.param)
    here = "{}.{}".format(*gpu.compute_capability)
    if library.targets() and here not in library.targets():
        pytest.skip(f"{library.name} does not build for compute capability {here}")
    return request.param


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine on disk and the graph it was built from; `opened` gets its path when a session opens."""

    built: BuiltEngine
    graph: bytes
    size: ModelSize
    opened: list[Path]

    def open(self, **options) -> TensorRTSession:
        session = TensorRTSession(self.built.path, self.built.record, self.size, REBUILD, **options)
        self.opened.append(self.built.path)
        return session


@pytest.fixture(scope="session")
def build(gpu, tmp_path_factory, pytestconfig) -> Callable[..., Engine]:
    """A function that builds the engine of a graph on this GPU, once in a run; head: see `EngineRecord`."""
    opened: list[Path] = []
    pytestconfig.stash[OPENED] = opened
    engines: dict[tuple[object, ...], Engine] = {}

    def get(
        backend: str,
        model: onnx.ModelProto,
        precision: str = "fp32",
        batch: tuple[int, int, int] = (1, 1, 4),
        head: str = "standard",
    ) -> Engine:
        key = (backend, model.SerializeToString(deterministic=True), precision, batch, head)
        if key not in engines:
            engines[key] = make(backend, model, precision, batch, head)
        return engines[key]

    def make(
        backend: str,
        model: onnx.ModelProto,
        precision: str,
        batch: tuple[int, int, int],
        head: str,
    ) -> Engine:
        directory: Path = tmp_path_factory.mktemp("engine")
        (directory / "model.onnx").write_bytes(model.SerializeToString())
        _, height_px, width_px, _ = (
            dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim
        )
        built = build_engine(
            directory / "model.onnx",
            EngineRequest(
                backend=backend,
                precision=precision,
                target="gpu-tests",
                batch=BatchProfile(*batch),
                settings=TensorRTSettings(),
                gpu="{}.{}".format(*gpu.compute_capability),
                head=head,
            ),
            directory=directory,
            timing_caches=tmp_path_factory.getbasetemp() / "timings",
        )
        return Engine(built, model.SerializeToString(), ModelSize(height_px, width_px), opened)

    return get
