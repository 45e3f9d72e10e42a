"""From an ONNX graph to an engine of TensorRT or TensorRT for RTX, in a process of its own.

The vendor's parser and compiler may abort the process that they run in, and a long build may run out of memory. Both
must end in one line of ours, not in a dead `edgead build` without a bundle or a word. So `tensorrt_worker` builds, and
this end feeds it, logs its progress, and reports the result.
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

from edgead.engine.request import EngineRequest, EngineTask, PluginLibrary
from edgead.errors import BackendError, InputError, needs_extra
from edgead.files.parsing import json_text
from edgead.plugin.loader import plugin_file, plugin_sha256
from edgead.runtime.tensorrt.engine_record import EngineRecord, Head, this_platform
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import Library, load_library

_log = logging.getLogger(__name__)

ENGINE_FILE = "model.engine"

_LAST_WORDS_BYTES = 4096

# No module that happens to lie in the working directory; Python 3.10 has neither -P nor PYTHONSAFEPATH.
_WORKER = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "from edgead.engine.tensorrt_worker import main; main()"
)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine on disk.

    path: of the engine. record: what it was built for; the caller writes it beside the engine. layers: the compiler's
    report of its layers, JSON; None where this machine cannot open the engine. seconds: that the build took.
    """

    path: Path
    record: EngineRecord
    layers: str | None
    seconds: float


def build_engine(model: Path, request: EngineRequest, *, directory: Path, timing_caches: Path) -> BuiltEngine:
    """Compile an ONNX file that edgead wrote to `directory` / `ENGINE_FILE`, which is written whole or not at all.

    The steps of the compiler are logged, a few lines a second at most.

    Args:
        model: The ONNX file.
        request: The engine that is wanted. With head "plugin" the library is this user's, of `plugin_file`, and a
            version-compatible engine gets a copy of it inside.
        directory: Directory to write the engine to.
        timing_caches: Directory of TensorRT's timing caches, one for each version and GPU, read and written. TensorRT
            for RTX has none.

    Returns:
        The engine, and the record to write beside it.

    Raises:
        InputError: If the backend does not have one of the settings.
        BackendError: If the library or the plugin is missing, there is no GPU where one is needed, or the library
            refuses the graph or dies of it.
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
    with tempfile.TemporaryDirectory(prefix="edgead-") as scratch:
        graph = Path(scratch) / "graph.onnx"
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
    """Record what an engine was built for."""
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
    """The compute capabilities that an engine is built for; BackendError where the library builds for none of them."""
    settings = request.settings
    built_for = settings.compute_capabilities or ((request.gpu,) if request.gpu else ())
    if not built_for:
        raise BackendError(
            f"no GPU to build for with {library.name}: build on a machine with an NVIDIA GPU and its driver"
            + (f", or give compute_capabilities, of {', '.join(library.targets())}" * library.for_rtx)
        )
    for compute_capability in settings.compute_capabilities:
        library.target(compute_capability)
    if settings.hardware_compatibility == "same-compute-capability" and not library.same_compute_capability:
        raise BackendError(
            f"{library.name} has no hardware_compatibility 'same-compute-capability', TensorRT 10.9 brought it: "
            "choose another"
        )
    return built_for


def _check_settings(request: EngineRequest) -> None:
    settings = request.settings
    if request.backend == "tensorrt-rtx":
        if request.head == "plugin":
            raise InputError("TensorRT for RTX takes no plugin: build with --head standard")
        if settings.version_compatible or settings.hardware_compatibility != "none":
            raise InputError(
                "TensorRT for RTX has no version_compatible and no hardware_compatibility: "
                "give compute_capabilities, and rebuild for another version"
            )
    elif settings.compute_capabilities:
        raise InputError(
            f"compute_capabilities {', '.join(settings.compute_capabilities)}: TensorRT builds for this machine's GPU "
            "alone; build on such a machine, or give hardware_compatibility"
        )


def _headed(content: bytes, head: Head, model: Path) -> tuple[bytes, FeatureRecord | None]:
    """The graph with this head, as the library takes it, and what it gives where it ends in features."""
    with needs_extra("build", "building an engine"):
        import onnx

        from edgead.export.head.cut import features_of
        from edgead.export.head.inline import without_head_function
        from edgead.export.head.plugin_node import plugin_head
    features = None
    try:
        graph = onnx.load_from_string(content)
        if head == "plugin":
            graph = plugin_head(graph)
        elif head == "kernels":
            graph, features = features_of(graph)
        return without_head_function(graph).SerializeToString(), features
    except BackendError:
        raise
    except Exception as error:  # those of onnx and of protobuf have no common base below
        raise BackendError(
            f"{model} is no ONNX graph that edgead wrote ({' '.join(str(error).split())[:200]}): "
            "rebuild the bundle with 'edgead build'"
        ) from error


def _work(task: EngineTask, library: str, model: Path) -> str | None:
    """Let the worker build, and return its report of the layers."""
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
            # It may die before it received anything; how, is said below.
            with suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(json_text(asdict(task), indent=None).encode())
            for line in worker.stdout:
                if not line.endswith(b"\n"):
                    break  # it died in the middle of an answer
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
        raise BackendError(answers["error"])
    if "built" in answers:
        # A library that dies over its own report has built the engine all the same.
        layers: str | None = answers.get("layers")
        return layers
    raise BackendError(f"{library} {_death(worker.returncode, last_words)}: the graph was {model}")


def _death(code: int, last_words: str) -> str:
    said = " ".join(last_words.split())[-300:] or "nothing"
    if code >= 0:
        return f"ended the build with exit code {code} (it said: {said})"
    name = signal.Signals(-code).name
    advice = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
    return f"died of {name} while it built the engine (it said: {said}{advice})"
