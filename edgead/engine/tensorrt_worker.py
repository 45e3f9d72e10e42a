"""The process that compiles one engine: ``python -m edgead.engine.tensorrt_worker``.

`edgead.engine.tensorrt_build` starts it and writes an `EngineTask` as JSON to its standard input. It answers in lines
of JSON: {"progress": line} for every logged line, then {"error": text, "hint": text or null, "refused": whether the
library refuses this graph}, or {"built": true} as soon as the engine is written, and {"layers": report or null}. If the
process ends in another way, the parent reads the exit status and standard error, which has the messages of the library.

A plugin is usually opened like any shared library, which registers its creator for the whole process. A plugin that the
engine will contain is loaded differently. The builder loads it into its own registry, and the runtime that opens the
engine for the report loads the copy of the engine into another registry. Each registry loads the plugin only once,
because a registry rejects a second creator with the same name. NVIDIA's trtexec uses the same order
(--dynamicPlugins with --setPluginsToSerialize).
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

from edgead.engine.engine_layers import layers_from_log
from edgead.engine.request import MORE_MEMORY, EngineTask, PluginLibrary
from edgead.engine.settings import TensorRTSettings
from edgead.engine.tensorrt_config import builder_config, keep_timings, read_timings, set_batch
from edgead.engine.tensorrt_network import parsed_network
from edgead.errors import BackendError, EdgeadError, GraphRefusedError
from edgead.files.atomic import replace_file
from edgead.files.parsing import parse_json
from edgead.files.records import record_errors, record_from
from edgead.plugin.loader import checked_plugin, load_plugin
from edgead.runtime.tensorrt.library import Library, load_library
from edgead.text import printable

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 0.3
_MAX_TASK_BYTES = 2**16


class _Answers(logging.Handler):
    """Handler that sends log records to the parent. If the parent no longer reads, the logging call raises OSError.

    Args:
        answer: Function that writes an answer from its keyword arguments.
    """

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        """Send one log record, see `logging.Handler.emit`."""
        self._answer(progress=record.getMessage())


def main() -> None:
    """Read the task from standard input, build the engine, and write the answers to standard output."""
    # The library may print to standard output, and its text must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**content: str | bool | None) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    # No other code runs in this process, so its root logger may be configured.
    logging.basicConfig(level=logging.INFO, handlers=[_Answers(answer)])
    try:
        with record_errors(BackendError, "the worker cannot read the task of the build", "build again"):
            content = sys.stdin.buffer.read(_MAX_TASK_BYTES + 1)
            task = record_from(EngineTask, parse_json(content, _MAX_TASK_BYTES))
        library, engine, layers = build(task)
    except EdgeadError as error:
        answer(error=error.what, hint=error.hint, refused=isinstance(error, GraphRefusedError))
    except MemoryError:
        answer(error="the memory is too small for the build", hint=MORE_MEMORY, refused=True)
    else:
        answer(built=True)
        host_code = task.request.settings.version_compatible
        answer(layers=layers if library.for_rtx else _layers(library, engine, host_code=host_code))


def build(task: EngineTask) -> tuple[Library, Any, str | None]:
    """Build and write an engine. The steps are logged.

    Args:
        task: Task of this process.

    Returns:
        The library, the content of the engine (a buffer of the library), and its layers as JSON if the library is
        TensorRT for RTX and lists them.

    Raises:
        GraphRefusedError: If the library rejects the graph.
        BackendError: If the library is missing or rejects the plugin or a setting, or the machine cannot build.
    """
    _log.info("loading the library")
    library = load_library(task.request.backend)
    library.logger.heard = lambda line: print(printable(line), file=sys.stderr, flush=True)
    listed: list[str] = []
    if library.for_rtx:
        library.logger.verbose = lambda message: listed.extend(filter(None, [layers_from_log(message)]))
    settings = task.request.settings
    try:
        builder = library.module.Builder(library.logger)
    except TypeError as error:
        raise BackendError(
            f"{library.name} cannot start to build ({library.said()})",
            hint="check the GPU with 'edgead doctor'",
        ) from error
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
    del parser  # not earlier, because it owns the weights of the network
    if engine is None:
        raise library.failure("cannot build an engine of the graph", "build with another --precision")
    _log.info("writing the engine")
    with replace_file(task.engine) as partial:
        partial.write_bytes(memoryview(engine))
    if cache_file:
        keep_timings(config, cache_file)
    return library, engine, listed[-1] if listed else None


def _take_plugin(
    library: Library, builder: Any, plugin: PluginLibrary, settings: TensorRTSettings
) -> list[str]:
    """Load the plugin for the parser, and return the paths of the libraries that the engine will contain."""
    if not settings.version_compatible:
        load_plugin(plugin.path, plugin.sha256)
        return []
    if not hasattr(library.module.IBuilderConfig, "plugins_to_serialize"):
        raise BackendError(
            f"{library.name} cannot put a plugin into a version-compatible engine, because it has no "
            "plugins_to_serialize",
            hint="build with --head standard, or leave version_compatible out of the target",
        )
    path = checked_plugin(plugin.path, plugin.sha256)
    if builder.get_plugin_registry().load_library(path) is None:
        raise BackendError(
            f"{library.name} does not load the plugin {path}, which may be compiled for another TensorRT "
            f"({library.said()})",
            hint="compile it again on this machine with 'edgead plugin build'",
        )
    return [path]


def _monitor(library: Library) -> Any:
    """Make a progress monitor that logs a few lines a second, and stops the build if the parent no longer reads."""
    base: Any = library.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._lock = threading.Lock()  # the library calls from several threads
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
    """Return the report of the inspector, JSON, or None if this machine has no GPU that can open the engine.

    Args:
        library: Library that built the engine.
        engine: Content of the engine.
        host_code: Whether the engine contains code for the CPU. It is safe, because this process has built the engine.
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
