"""Tests that need an NVIDIA GPU; without one they are skipped, with the reason.

With EDGEAD_REQUIRE_GPU=1, as in `make test-gpu`, that skip is a failure. They run with each installed TensorRT.
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
    """An engine on disk and the graph it was built from."""

    built: BuiltEngine
    graph: bytes
    size: ModelSize

    def open(self, **options) -> TensorRTSession:
        return TensorRTSession(self.built.path, self.built.record, self.size, REBUILD, **options)


@pytest.fixture(scope="session")
def build(gpu, tmp_path_factory) -> Callable[..., Engine]:
    """A function that builds the engine of a graph on this GPU; head: see `EngineRecord`."""

    def make(
        backend: str,
        model: onnx.ModelProto,
        precision: str = "fp32",
        batch: tuple[int, int, int] = (1, 1, 4),
        head: str = "standard",
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
        return Engine(built, model.SerializeToString(), ModelSize(height_px, width_px))

    return make
