"""Compiles an ONNX graph to an engine of TensorRT or TensorRT for RTX, in a separate process.

The vendor's parser and compiler may abort their process, and a long build may run out of memory. In both cases `edgead
build` must report one error line instead of dying silently. So the process `tensorrt_worker` builds, and this module
gives it the task, logs its progress, and reports the result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgead.engine.request import MORE_MEMORY, EngineRequest, EngineTask, PluginLibrary
from edgead.errors import BackendError, GraphRefusedError, InputError, needs_extra
from edgead.files.cache import temporary_directory
from edgead.files.parsing import json_text
from edgead.plugin.loader import plugin_file, plugin_sha256
from edgead.runtime.tensorrt.engine_record import EngineRecord, Head, this_platform
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import Library, load_library

_log = logging.getLogger(__name__)

ENGINE_FILE = "model.engine"

_LAST_WORDS_BYTES = 4096

# Signals of a library that crashes. Linux sends SIGKILL when memory runs out.
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)

# The worker must not import modules from the working directory. Python 3.10 has neither -P nor PYTHONSAFEPATH.
_WORKER = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "from edgead.engine.tensorrt_worker import main; main()"
)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine on disk.

    Attributes:
        path: File of the engine.
        record: Record of the engine. The caller writes it beside the engine.
        layers: Report of the compiler about the layers, JSON. None if TensorRT cannot open the engine on this machine;
            TensorRT for RTX reports them without a GPU.
        seconds: Duration of the build, in seconds.
    """

    path: Path
    record: EngineRecord
    layers: str | None
    seconds: float


def build_engine(model: Path, request: EngineRequest, *, directory: Path, timing_caches: Path) -> BuiltEngine:
    """Compile an ONNX file that edgead wrote.

    The engine is written whole or not at all. The steps of the compiler are logged, at most a few lines a second.

    Args:
        model: ONNX file.
        request: Request for the engine. For head "plugin" the library of this user is used, `plugin_file`. A
            version-compatible engine contains a copy of it.
        directory: Directory to write the engine to, as `ENGINE_FILE`.
        timing_caches: Directory of TensorRT's timing caches, one for each version and GPU, read and written. TensorRT
            for RTX has no timing cache.

    Returns:
        The engine and its record.

    Raises:
        InputError: If the backend does not support one of the settings.
        GraphRefusedError: If the library rejects the graph or crashes on it, or the memory is too small.
        BackendError: If the library or the plugin is missing, or a GPU is needed and there is none.
        MissingExtraError: If onnx is not installed.
    """
    library = load_library(request.backend)
    _check_settings(request)
    built_for = _compute_capabilities(request, library)
    content = model.read_bytes()
    graph_sha256 = hashlib.sha256(content).hexdigest()
    content, features = _headed(content, request.head, model)
    plugin = None
    if request.head == "plugin":
        plugin = PluginLibrary(plugin_file(), plugin_sha256(plugin_file()))
    engine = directory / ENGINE_FILE
    started = time.monotonic()
    with temporary_directory() as scratch:
        graph = scratch / "graph.onnx"
        graph.write_bytes(content)
        del content
        cache = timing_caches / f"{request.backend}-{library.version_text}-sm{request.gpu}.timing"
        task = EngineTask(
            request=request,
            graph=graph,
            engine=engine.resolve(),
            timing_cache=None if library.for_rtx else cache.resolve(),
            plugin=plugin,
            features=features,
        )
        record = _record(task, library, built_for, graph_sha256)
        layers = _work(task, library.name, model)
    return BuiltEngine(engine, record, layers, time.monotonic() - started)


def _record(
    task: EngineTask, library: Library, compute_capabilities: tuple[str, ...], graph_sha256: str
) -> EngineRecord:
    """Make the record of an engine: the machines and versions that it was built for."""
    request = task.request
    return EngineRecord(
        backend=request.backend,
        library_version=library.version_text,
        platform=this_platform(),
        compute_capabilities=compute_capabilities,
        hardware_compatibility=request.settings.hardware_compatibility,
        version_compatible=request.settings.version_compatible,
        precision=request.precision,
        batch=(request.batch.min, request.batch.opt, request.batch.max),
        graph_sha256=graph_sha256,
        target=request.target,
        head=request.head,
        plugin_sha256=task.plugin.sha256 if task.plugin else None,
        features=task.features,
    )


def _compute_capabilities(request: EngineRequest, library: Library) -> tuple[str, ...]:
    """Return the compute capabilities to build for, or raise BackendError if the library cannot build for them."""
    settings = request.settings
    built_for = settings.compute_capabilities or ((request.gpu,) if request.gpu else ())
    if not built_for:
        raise BackendError(
            f"{library.name} has no GPU to build for",
            hint="build on a machine with an NVIDIA GPU and its driver"
            + (f", or give compute_capabilities, of {', '.join(library.targets())}" * library.for_rtx),
        )
    for compute_capability in settings.compute_capabilities:
        library.target(compute_capability)
    if settings.hardware_compatibility == "same-compute-capability" and not library.same_compute_capability:
        raise BackendError(
            f"{library.name} does not support hardware_compatibility 'same-compute-capability'",
            hint="install TensorRT 10.9 or newer, or choose another hardware_compatibility",
        )
    return built_for


def _check_settings(request: EngineRequest) -> None:
    """Raise InputError if the backend does not support one of the settings."""
    settings = request.settings
    if request.backend == "tensorrt-rtx":
        if request.head == "plugin":
            raise InputError("TensorRT for RTX does not support plugins", hint="build with --head standard")
        if settings.version_compatible or settings.hardware_compatibility != "none":
            raise InputError(
                "TensorRT for RTX does not support version_compatible and hardware_compatibility",
                hint="give compute_capabilities, and rebuild for another version",
            )
    elif settings.compute_capabilities:
        raise InputError(
            f"TensorRT builds only for this machine's GPU, not for compute_capabilities "
            f"{', '.join(settings.compute_capabilities)}",
            hint="build on a machine with such a GPU, or give hardware_compatibility",
        )


def _headed(content: bytes, head: Head, model: Path) -> tuple[bytes, FeatureRecord | None]:
    """Return the graph with a head, in the form that the library takes, and its features if it ends in features."""
    with needs_extra("build", "building an engine"):
        from edgead.export.head.cut import features_of
        from edgead.export.head.inline import without_head_function
        from edgead.export.head.model_file import graph_from_file
        from edgead.export.head.plugin_node import plugin_head
    features = None
    try:
        graph = graph_from_file(content)
        if head == "plugin":
            graph = plugin_head(graph)
        elif head == "kernels":
            graph, features = features_of(graph)
        return without_head_function(graph).SerializeToString(), features
    except BackendError:
        raise
    except Exception as error:  # the errors of onnx and protobuf have no common base class below this one
        raise BackendError(
            f"{model} is no ONNX graph that edgead wrote ({' '.join(str(error).split())[:200]})",
            hint="rebuild the bundle with 'edgead build'",
        ) from error


def _work(task: EngineTask, library: str, model: Path) -> str | None:
    """Run the worker, and return its report of the layers."""
    answers: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            # The worker may die before it has read the task. The error is raised below.
            with suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(json_text(asdict(task), indent=None).encode())
            for line in worker.stdout:
                if not line.endswith(b"\n"):
                    break  # the worker died in the middle of an answer
                answer = json.loads(line)
                if "progress" in answer:
                    _log.info("%s", answer["progress"])
                else:
                    answers |= answer
            worker.wait()
        finally:
            worker.kill()
        words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        last_words = words.read().decode(errors="replace")
    if "error" in answers:
        raise (GraphRefusedError if answers["refused"] else BackendError)(
            answers["error"], hint=answers["hint"]
        )
    if "built" in answers:
        # The engine is complete even if the library crashes when it makes the report.
        layers: str | None = answers.get("layers")
        return layers
    raise _death(library, worker.returncode, last_words, model)


def _death(library: str, code: int, last_words: str, model: Path) -> BackendError:
    """Make the error for a worker that ended without an answer.

    A library that crashes may accept another graph. A worker that a person or the system stopped, or that ended by
    itself, ends the build.
    """
    printed = " ".join(last_words.split())[-300:] or "nothing"
    end = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return (GraphRefusedError if -code in _CRASHES else BackendError)(
        f"{library} {end} while it built an engine of {model} (it printed: {printed})",
        hint=MORE_MEMORY if code == -signal.SIGKILL else None,
    )
