"""The process that compiles one engine: ``python -m edgead.engine.tensorrt_worker``.

`edgead.engine.tensorrt_build` starts it and gives it an `EngineTask` as JSON on standard input. It answers in lines of
JSON: {"progress": line} as often as there is something to say, then {"error": line}, or {"built": true} once the engine
is written, and {"layers": report or null}. Whatever else ends it, the other end reads from the exit status, and from
standard error, where the library's complaints go as they come.

TensorRT 10 and newer, and TensorRT for RTX, take the types of the graph as they are. TensorRT 8.6 does not: once FP16
is allowed, its builder may choose half for any layer. So where FP16 is allowed, layers that give float32 are held to
it; not in a graph with Q/DQ pairs, where such a layer may be one that the builder fuses into int8: there half may still
be chosen for any layer.

A plugin is opened as any library, whose creator is then in the registry of the whole process. One that the engine is to
carry is not: the builder loads it into a registry of its own, and the runtime that opens the engine for its report
loads the engine's copy into another. Each knows it once, since a registry refuses a second creator of one name.
NVIDIA's trtexec has this order too (--dynamicPlugins with --setPluginsToSerialize).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgead.engine.request import EngineTask, PluginLibrary
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import BackendError, EdgeadError
from edgead.files.atomic import replace_file
from edgead.files.parsing import parse_json
from edgead.files.records import record_errors, record_from
from edgead.plugin.loader import checked_plugin, load_plugin
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import Library, load_library

_SECONDS_BETWEEN_LINES = 0.3
_MAX_CACHE_BYTES = 2**30
_MAX_TASK_BYTES = 2**16

Say = Callable[[str], None]


def main() -> None:
    """Read the task, build, answer."""
    # The library may print; what it prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**content: str | bool | None) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        with record_errors(BackendError, "the task of the build is broken", "build again"):
            content = sys.stdin.buffer.read(_MAX_TASK_BYTES + 1)
            task = record_from(EngineTask, parse_json(content, _MAX_TASK_BYTES))
        library, engine = build(task, lambda line: answer(progress=line))
    except EdgeadError as error:
        answer(error=str(error))
    else:
        answer(built=True)
        answer(layers=_layers(library, engine, host_code=task.request.settings.version_compatible))


def build(task: EngineTask, say: Say) -> tuple[Library, Any]:
    """Build and write the engine.

    Args:
        task: The work.
        say: Takes a line of progress.

    Returns:
        The library, and the engine's content, a buffer of the library's.

    Raises:
        BackendError: If the library refuses.
    """
    say("loading the library")
    library = load_library(task.request.backend)
    library.logger.heard = lambda line: print(line, file=sys.stderr, flush=True)
    settings = task.request.settings
    try:
        builder = library.module.Builder(library.logger)
    except TypeError as error:
        raise BackendError(f"{library.name} cannot start to build: {library.said()}") from error
    carried = _take_plugin(library, builder, task.plugin, settings) if task.plugin else []
    say("reading the graph")
    network, parser = _parsed(library, builder, task.graph, _outputs(task.features))
    config = _config(library, builder, network, settings)
    if carried:
        config.plugins_to_serialize = carried
    _set_batch(builder, network, config, task.request.batch)
    cache_file = task.timing_cache
    if cache_file:
        _read_timings(config, cache_file, say)
    monitor = _monitor(library, say) if library.reports_progress else None
    if monitor:
        config.progress_monitor = monitor
    say("compiling")
    engine = builder.build_serialized_network(network, config)
    del parser  # the network's weights are its own, so not earlier
    if engine is None:
        raise BackendError(f"{library.name} cannot build an engine of the graph: {library.said()}")
    say("writing the engine")
    with replace_file(task.engine) as partial:
        partial.write_bytes(memoryview(engine))
    if cache_file:
        _keep_timings(config, cache_file, say)
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
            "with --head standard, or leave version_compatible out of the recipe"
        )
    path = checked_plugin(plugin.path, plugin.sha256)
    if builder.get_plugin_registry().load_library(path) is None:
        raise BackendError(
            f"{library.name} does not take the plugin {path} ({library.said()}): it is for the TensorRT that it was "
            "compiled with; compile it again here with 'edgead plugin build'"
        )
    return [path]


def _outputs(features: FeatureRecord | None) -> list[str]:
    """What a graph has to give, as `_tensor` tells it, in the order of names."""
    if features is None:
        return ["anomaly_map FLOAT of 4 axes", "anomaly_score FLOAT of 1 axes"]
    dtypes = {"float32": "FLOAT", "float16": "HALF"}
    return sorted(f"{spec.name} {dtypes[spec.dtype]} of {len(spec.shape)} axes" for spec in features.outputs)


def _parsed(library: Library, builder: Any, graph: Path, outputs: list[str]) -> tuple[Any, Any]:
    """The network, and the parser that owns its weights; BackendError for what the parser says, or a foreign graph."""
    trt = library.module
    flag = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(
        1 << int(flag.STRONGLY_TYPED if library.strongly_typed else flag.EXPLICIT_BATCH)
    )
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(
            _parser_error(library, parser.get_error(index)) for index in range(parser.num_errors)
        )
        raise BackendError(f"{library.name} does not take the graph: {reasons[:600] or library.said()}")
    # A parser may read garbage as a graph of nothing, and 8.6 ignores the axes of a ReduceMax of opset 18.
    taken = [_tensor(network.get_input(index)) for index in range(network.num_inputs)]
    given = sorted(_tensor(network.get_output(index)) for index in range(network.num_outputs))
    if taken != ["images UINT8 of 4 axes"] or given != outputs:
        raise BackendError(
            f"{library.name} reads the graph as one that takes {', '.join(taken) or 'nothing'} and gives "
            f"{', '.join(given) or 'nothing'}, not images UINT8 of 4 axes and {', '.join(outputs)}: "
            "export it again with 'edgead build'"
        )
    return network, parser


def _tensor(tensor: Any) -> str:
    return f"{tensor.name} {tensor.dtype.name} of {len(tensor.shape)} axes"


def _parser_error(library: Library, error: Any) -> str:
    where = f"node {error.node()}"
    if library.names_nodes:
        where = f"node {error.node_name() or error.node()} ({error.node_operator() or 'no operator'})"
    return (
        f"{where}: {' '.join(error.desc().split())}" if error.node() >= 0 else " ".join(error.desc().split())
    )


def _config(library: Library, builder: Any, network: Any, settings: TensorRTSettings) -> Any:
    trt = library.module
    config = builder.create_builder_config()
    # On by default, and it rounds float32 to 10 bits: the engine has to give what the graph gives.
    config.clear_flag(trt.BuilderFlag.TF32)
    if not library.strongly_typed:
        _allow_precisions(trt, network, config)
        # A session has a context for each size of batch; newer versions share the profile by themselves.
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * 2**20)
    config.builder_optimization_level = settings.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility != "none":
        name = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
        level = getattr(trt.HardwareCompatibilityLevel, name[settings.hardware_compatibility])
        config.hardware_compatibility_level = level
    if library.for_rtx:
        targets = [library.target(value) for value in settings.compute_capabilities]
        targets = targets or [trt.ComputeCapability.CURRENT]
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            if not config.set_compute_capability(target, index):
                raise BackendError(f"{library.name} does not build for {target.name}: {library.said()}")
    return config


def _allow_precisions(trt: Any, network: Any, config: Any) -> None:
    """Allow a builder of 8.6 what the graph holds, and hold it to float32 where the graph has that beside half."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    given = [{layer.get_output(index).dtype for index in range(layer.num_outputs)} for layer in layers]
    quantised = any(layer.type == trt.LayerType.QUANTIZE for layer in layers)
    if quantised:
        config.set_flag(trt.BuilderFlag.INT8)
    if not any(trt.float16 in dtypes for dtypes in given):
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if quantised:
        return
    # A constant and a shape compute nothing, and a plugin says itself which types it takes.
    free = {trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.PLUGIN_V2}
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for layer, dtypes in zip(layers, given, strict=True):
        if dtypes == {trt.float32} and layer.type not in free:
            layer.precision = trt.float32


def _set_batch(builder: Any, network: Any, config: Any, batch: BatchProfile) -> None:
    images = network.get_input(0)
    picture = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((count, *picture) for count in (batch.min, batch.opt, batch.max)))
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(
            f"the graph does not take batches of {batch.min} to {batch.max} pictures: export it again"
        )


def _read_timings(config: Any, file: Path, say: Say) -> None:
    """Give the builder what it measured in earlier builds; it checks that they are of this GPU and version."""
    content = b""
    try:
        if file.is_file() and file.stat().st_size <= _MAX_CACHE_BYTES:
            content = file.read_bytes()
    except OSError:
        content = b""  # what cannot be read is measured again
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        say(f"the timing cache {file} is of another GPU or version: measuring anew")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, file: Path, say: Say) -> None:
    """Write the timings for later builds; the engine is built by now, so what prevents it is only said."""
    try:
        with replace_file(file) as partial:
            partial.write_bytes(memoryview(config.get_timing_cache().serialize()))
    except (OSError, EdgeadError) as error:
        say(f"timings not kept: {error}")


def _monitor(library: Library, say: Say) -> Any:
    """Tell the phases of the build, a few lines a second; an end that no longer listens stops the build."""

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
                        say(f"{phase_name.lower()}, {min(100, 100 * (step + 1) // steps)} %")
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
