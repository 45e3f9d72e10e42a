"""From a graph to what will run it on the target, and a session that shows how it decides.

On ONNX Runtime the graph is what runs. For TensorRT an engine is compiled; where this machine's GPU can run it, the
engine itself is judged. Where it cannot, because it was built for another GPU, the graph is judged on ONNX Runtime in
its place and the candidate says that the engine is still to be verified: by the device, at its start.
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
from edgead.runtime.tensorrt.engine_record import Head, check_fits, this_platform
from edgead.runtime.tensorrt.library import load_library

_log = logging.getLogger(__name__)

_REBUILD = "the same command on this machine"
_HEADS: Mapping[Head, str] = {
    "standard": "operators of the engine",
    "plugin": "edgead's plugin for TensorRT",
    "kernels": "edgead's CUDA kernels behind the engine",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session, the files that a bundle needs beside the graph, and whether that session is what the target runs."""

    session: Session
    files: Mapping[str, Path | bytes]
    verified: bool


def check_target_here(plan: Plan) -> None:
    """Refuse, before work, a target that this machine cannot build for.

    Raises:
        BackendError: The target's library is missing or too old, or it builds for this machine's GPU and there is none.
        MissingExtraError: onnx is missing, and the plan converts or compiles a graph.
    """
    if plan.target.tensorrt is not None or plan.candidate_precisions != ("fp32",):
        with needs_extra("build", "another precision or target"):
            import onnx  # noqa: F401
    if plan.target.tensorrt is None:
        return
    load_library("tensorrt-rtx" if plan.target.backend == "tensorrt-rtx" else "tensorrt")
    if not plan.target.tensorrt.compute_capabilities and (no_gpu := _gpu()[1]) is not None:
        raise no_gpu


@contextmanager
def open_candidate(
    converted: ConvertedModel, plan: Plan, size: ModelSize, directory: Path
) -> Iterator[Candidate]:
    """Build what the plan's backend runs, and open it.

    Args:
        converted: The graph.
        plan: Target that it is built for, and the head of an engine.
        size: Size of the images that the graph takes.
        directory: Directory to write an engine to; it must outlive the candidate's files.

    Yields:
        The opened candidate.

    Raises:
        BackendError: If the library is missing, refuses the graph or fails.
    """
    if plan.target.tensorrt is None:
        with OnnxRuntimeSession(converted.model, size=size) as session:
            yield Candidate(session, {}, verified=True)
        return
    gpu, no_gpu = _gpu()
    if no_gpu is not None and not plan.target.tensorrt.compute_capabilities:
        raise no_gpu
    built = _compiled(converted, plan, plan.target.tensorrt, gpu, directory)
    files: dict[str, Path | bytes] = {
        "model.engine": built.path,
        "engine.json": built.record.to_json().encode(),
    }
    if built.layers is not None:
        files["layers.json"] = built.layers.encode()
    # The first clause says what; the hint is for somebody who wants to run engines here.
    reason = str(no_gpu).partition(":")[0] if gpu is None else _why_not_here(built, gpu)
    if reason is not None:
        _log.info(
            "the engine is not run here (%s): its graph is judged, and the device proves the engine", reason
        )
        with OnnxRuntimeSession(converted.model, size=size) as session:
            yield Candidate(session, files, verified=False)
        return
    from edgead.runtime.tensorrt.session import TensorRTSession

    with TensorRTSession(built.path, built.record, size, _REBUILD) as session:
        yield Candidate(session, files, verified=True)


def _compiled(
    converted: ConvertedModel, plan: Plan, settings: TensorRTSettings, gpu: str | None, directory: Path
) -> BuiltEngine:
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


def _gpu() -> tuple[str | None, BackendError | None]:
    """Compute capability of this machine's GPU, as "8.6"; None, and why, where there is none that can be used."""
    from edgead.runtime.tensorrt.cuda import Gpu

    try:
        major, minor = Gpu().compute_capability
    except BackendError as error:
        return None, error
    return f"{major}.{minor}", None


def _why_not_here(built: BuiltEngine, gpu: str) -> str | None:
    """Why the GPU of this machine cannot run an engine that was just built here; None where it can."""
    try:
        check_fits(built.record, built.record.library_version, this_platform(), gpu, _REBUILD)
    except BackendError:
        return f"it is for {' and '.join(built.record.compute_capabilities)}, this GPU has {gpu}"
    return None
