"""The process that compiles one engine: ``python -m edgead.engine.tensorrt_worker``.

`edgead.engine.tensorrt_build` starts it and gives it an `EngineTask` as JSON on standard input. It answers in lines of
JSON: {"progress": line} for every line that is logged, then {"error": line}, or {"built": true} once the engine is
written, and {"layers": report or null}. Whatever else ends it, the other end reads from the exit status, and from
standard error, where the library's complaints go as they come.

A plugin is opened as any library, whose creator is then in the registry of the whole process. One that the engine is to
carry is not: the builder loads it into a registry of its own, and the runtime that opens the engine for its report
loads the engine's copy into another. Each knows it once, since a registry refuses a second creator of one name.
NVIDIA's trtexec has this order too (--dynamicPlugins with --setPluginsToSerialize).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from edgead.engine.request import EngineTask, PluginLibrary
from edgead.engine.settings import TensorRTSettings
from edgead.engine.tensorrt_config import builder_config, keep_timings, read_timings, set_batch
from edgead.engine.tensorrt_network import parsed_network
from edgead.errors import BackendError, EdgeadError
from edgead.files.atomic import replace_file
from edgead.files.parsing import parse_json
from edgead.files.records import record_errors, record_from
from edgead.plugin.loader import checked_plugin, load_plugin
from edgead.runtime.tensorrt.library import Library, load_library

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 0.3
_MAX_TASK_BYTES = 2**16


class _Answers(logging.Handler):
    """Sends what is logged to the other end; if that no longer reads, `logging` raises OSError where it is called."""

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        self._answer(progress=record.getMessage())


def main() -> None:
    """Read the task, build, answer."""
    # The library may print; what it prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**content: str | bool | None) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    # The process is ours alone, and so is its root logger.
    logging.basicConfig(level=logging.INFO, handlers=[_Answers(answer)])
    try:
        with record_errors(BackendError, "the task of the build is broken", "build again"):
            content = sys.stdin.buffer.read(_MAX_TASK_BYTES + 1)
            task = record_from(EngineTask, parse_json(content, _MAX_TASK_BYTES))
        library, engine = build(task)
    except EdgeadError as error:
        answer(error=str(error))
    else:
        answer(built=True)
        answer(layers=_layers(library, engine, host_code=task.request.settings.version_compatible))


def build(task: EngineTask) -> tuple[Library, Any]:
    """Build and write the engine. The steps are logged.

    Args:
        task: The work.

    Returns:
        The library, and the engine's content, a buffer of the library's.

    Raises:
        BackendError: If the library refuses.
    """
    _log.info("loading the library")
    library = load_library(task.request.backend)
    library.logger.heard = lambda line: print(line, file=sys.stderr, flush=True)
    settings = task.request.settings
    try:
        builder = library.module.Builder(library.logger)
    except TypeError as error:
        raise BackendError(f"{library.name} cannot start to build: {library.said()}") from error
    carried = _take_plugin(library, builder, task.plugin, settings) if task.plugin else []
    _log.info("reading the graph")
    network, parser = parsed_network(library, builder, task.graph, task.features)
    config = builder_config(library, builder, network, settings)
    if carried:
        config.plugins_to_serialize = carried
    set_batch(builder, network, config, task.request.batch)
    cache_file = task.timing_cache
    if cache_file:
        read_timings(config, cache_file)
    monitor = _monitor(library) if library.reports_progress else None
    if monitor:
        config.progress_monitor = monitor
    _log.info("compiling")
    engine = builder.build_serialized_network(network, config)
    del parser  # the network's weights are its own, so not earlier
    if engine is None:
        raise BackendError(f"{library.name} cannot build an engine of the graph: {library.said()}")
    _log.info("writing the engine")
    with replace_file(task.engine) as partial:
        partial.write_bytes(memoryview(engine))
    if cache_file:
        keep_timings(config, cache_file)
    return library, engine


def _take_plugin(
    library: Library, builder: Any, plugin: PluginLibrary, settings: TensorRTSettings
) -> list[str]:
    """Have the parser find the plugin, and return the paths of the libraries that the engine is to carry."""
    if not settings.version_compatible:
        load_plugin(plugin.path, plugin.sha256)
        return []
    if not hasattr(library.module.IBuilderConfig, "plugins_to_serialize"):
        raise BackendError(
            f"{library.name} puts no plugin into a version-compatible engine, it has no plugins_to_serialize: build "
            "with --head standard, or leave version_compatible out of the target"
        )
    path = checked_plugin(plugin.path, plugin.sha256)
    if builder.get_plugin_registry().load_library(path) is None:
        raise BackendError(
            f"{library.name} does not take the plugin {path} ({library.said()}): it is for the TensorRT that it was "
            "compiled with; compile it again here with 'edgead plugin build'"
        )
    return [path]


def _monitor(library: Library) -> Any:
    """Log the phases of the build, a few lines a second; an end that no longer listens stops the build."""
    base: Any = library.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._lock = threading.Lock()  # phases run in threads of the library
            self._steps: dict[str, int] = {}
            self._said_at = 0.0
            self._listening = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                now = time.monotonic()
                steps = self._steps.get(phase_name, 0)
                if steps > 0 and now - self._said_at >= _SECONDS_BETWEEN_LINES:
                    self._said_at = now
                    try:
                        _log.info("%s, %d %%", phase_name.lower(), min(100, 100 * (step + 1) // steps))
                    except OSError:
                        self._listening = False
                return self._listening

    return Monitor()


def _layers(library: Library, engine: Any, *, host_code: bool) -> str | None:
    """The inspector's report, JSON; it takes an opened engine, so a GPU that the engine is for.

    host_code: it carries code for the processor, which this process has just put in.
    """
    trt = library.module
    runtime = trt.Runtime(library.logger)
    if host_code:
        runtime.engine_host_code_allowed = True
    opened = runtime.deserialize_cuda_engine(engine)
    if opened is None:
        return None
    inspector = opened.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


if __name__ == "__main__":
    main()
