"""Makes the files that run a graph on the target, and opens a session to verify them with.

ONNX Runtime and OpenVINO run the graph itself, on the device of this machine. For TensorRT an engine is compiled. If
the GPU of this machine can run the engine, the engine is verified. If the engine is for another GPU, the graph is
verified on ONNX Runtime instead. The candidate then records that the engine is not verified yet; the device verifies
it at its start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgead.engine.plan import Plan
from edgead.engine.precision_converter import ConvertedModel
from edgead.engine.request import EngineRequest
from edgead.engine.settings import TensorRTSettings
from edgead.engine.tensorrt_build import BuiltEngine, build_engine
from edgead.errors import BackendError, needs_extra
from edgead.files.cache import cache_directory
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.openvino import OPENVINO_BACKENDS, OpenVinoSession, device_name
from edgead.runtime.tensorrt.engine_record import Head, check_fits, this_platform
from edgead.runtime.tensorrt.library import load_library
from edgead.types import Backend

_log = logging.getLogger(__name__)

_REBUILD = "the same command on this machine"
_HEADS: Mapping[Head, str] = {
    "standard": "operators of the engine",
    "plugin": "edgead's plugin for TensorRT",
    "kernels": "edgead's CUDA kernels behind the engine",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph or engine that may become a bundle, opened for verification.

    Attributes:
        session: Session to verify.
        files: Files that the bundle needs beside the graph, by name.
        verified: True if the target runs what the session runs; False if the session runs the graph instead of the
            engine.
        timed: Whether the session runs as on the device, so that its time can be compared with the time of other
            candidates.
    """

    session: Session
    files: Mapping[str, Path | bytes]
    verified: bool
    timed: bool = False


def check_target_here(plan: Plan) -> None:
    """Check that this machine can build for the target of a plan, before any work.

    Args:
        plan: Plan of the build.

    Raises:
        BackendError: If the library of the target is missing or too old, or the target is for a device of this machine
            and there is none.
        MissingExtraError: If the plan converts or compiles a graph and onnx is missing.
    """
    backend = plan.target.backend
    if backend != "onnxruntime" or plan.candidate_precisions != ("fp32",):
        with needs_extra("build", "another precision or target"):
            import onnx  # noqa: F401
    if backend in OPENVINO_BACKENDS:
        device_name(backend)
    if plan.target.tensorrt is None:
        return
    load_library("tensorrt-rtx" if plan.target.backend == "tensorrt-rtx" else "tensorrt")
    if not plan.target.tensorrt.compute_capabilities and isinstance(gpu := _gpu(), BackendError):
        raise gpu


def half_beside_int8(plan: Plan) -> bool:
    """Choose the type of the layers of an INT8 graph that are not INT8.

    Args:
        plan: Plan of the build.

    Returns:
        True for float16, where Q/DQ pairs of float16 can be compiled. False for float32: the parser of TensorRT 8.6
        does not take such pairs, and its builder may choose float16 itself, see `edgead.engine.tensorrt_config`. ONNX
        Runtime converts float16 to float32 on a CPU, so float16 is slower there.

    Raises:
        BackendError: If the library of the target is missing or too old.
    """
    if plan.target.tensorrt is None:
        return False
    return load_library(
        "tensorrt-rtx" if plan.target.backend == "tensorrt-rtx" else "tensorrt"
    ).strongly_typed


@contextmanager
def open_candidate(
    converted: ConvertedModel, plan: Plan, size: ModelSize, directory: Path
) -> Iterator[Candidate]:
    """Build the files that the backend of a plan runs, and open a session.

    Args:
        converted: Graph to run.
        plan: Plan with the target, and the head of an engine.
        size: Size of the images that the graph takes, in pixels.
        directory: Directory to write an engine to. It must exist as long as the files of the candidate are used.

    Yields:
        The candidate; its session is open within the context.

    Raises:
        GraphRefusedError: If the library refuses the graph or crashes on it.
        BackendError: If the library is missing, or this machine cannot build or run an engine.
    """
    if plan.target.tensorrt is None:
        with open_graph(converted, plan.target.backend, size) as session:
            yield Candidate(session, {}, verified=True, timed=plan.target.backend in OPENVINO_BACKENDS)
        return
    gpu = _gpu()
    if isinstance(gpu, BackendError) and not plan.target.tensorrt.compute_capabilities:
        raise gpu
    gpu_here = None if isinstance(gpu, BackendError) else gpu
    built = _compiled(converted, plan, plan.target.tensorrt, gpu_here, directory)
    files: dict[str, Path | bytes] = {
        "model.engine": built.path,
        "engine.json": built.record.to_json().encode(),
    }
    if built.layers is not None:
        files["layers.json"] = built.layers.encode()
    # The log has no hint: how to get a GPU matters only to a user who wants to run engines on this machine.
    reason = gpu.what if isinstance(gpu, BackendError) else _why_not_here(built, gpu)
    if reason is not None:
        _log.info(
            "the engine cannot run on this machine (%s): its graph is verified instead, and the device verifies the "
            "engine at its start",
            reason,
        )
        with open_graph(converted, plan.target.backend, size) as session:
            yield Candidate(session, files, verified=False)
        return
    from edgead.runtime.tensorrt.session import TensorRTSession

    with TensorRTSession(built.path, built.record, size, _REBUILD) as session:
        yield Candidate(session, files, verified=True, timed=True)


def open_graph(converted: ConvertedModel, backend: Backend, size: ModelSize) -> Session:
    """Open a graph with the library of a backend: OpenVINO on its device, or else ONNX Runtime, the reference.

    Args:
        converted: Graph to run.
        backend: Backend of the target. The graph of an engine runs on ONNX Runtime.
        size: Size of the images that the graph takes, in pixels.

    Returns:
        The session, to be closed by the caller.

    Raises:
        BackendError: If the library or the device is missing, or the graph does not load.
    """
    if backend in OPENVINO_BACKENDS:
        return OpenVinoSession(converted.model, backend, converted.precision, size=size)
    return OnnxRuntimeSession(converted.model, size=size)


def _compiled(
    converted: ConvertedModel, plan: Plan, settings: TensorRTSettings, gpu: str | None, directory: Path
) -> BuiltEngine:
    """Compile the engine of a graph."""
    graph = directory / "model.onnx"
    graph.write_bytes(converted.model)
    head = plan.engine_head()
    _log.info("compiling with head %s: the anomaly map comes from %s", head, _HEADS[head])
    built = build_engine(
        graph,
        EngineRequest(
            backend="tensorrt-rtx" if plan.target.backend == "tensorrt-rtx" else "tensorrt",
            precision=converted.precision,
            target=plan.target_name,
            batch=plan.target.batch,
            settings=settings,
            gpu=gpu,
            head=head,
        ),
        directory=directory,
        timing_caches=cache_directory(),
    )
    _log.info("compiled an engine of %.1f MB in %.0f s", built.path.stat().st_size / 1e6, built.seconds)
    return built


def _gpu() -> str | BackendError:
    """Return the compute capability of this machine's GPU, such as "8.6", or the error if no GPU is usable."""
    from edgead.runtime.tensorrt.cuda import Gpu

    try:
        major, minor = Gpu().compute_capability
    except BackendError as error:
        return error
    return f"{major}.{minor}"


def _why_not_here(built: BuiltEngine, gpu: str) -> str | None:
    """Explain why the GPU of this machine cannot run an engine that was just built here; None if it can."""
    try:
        check_fits(built.record, built.record.library_version, this_platform(), gpu, _REBUILD)
    except BackendError:
        return f"it is for {' and '.join(built.record.compute_capabilities)}, this GPU has {gpu}"
    return None
