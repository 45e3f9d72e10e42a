"""The configuration of TensorRT's builder: what the settings of a target mean to each version, and its timing cache.

TensorRT 10 and newer, and TensorRT for RTX, take the types of the graph as they are. TensorRT 8.6 does not: once FP16
is allowed, its builder may choose half for any layer. So where FP16 is allowed, layers that give float32 are held to
it; not in a graph with Q/DQ pairs, where such a layer may be one that the builder fuses into int8: there half may still
be chosen for any layer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import BackendError, EdgeadError
from edgead.files.atomic import replace_file
from edgead.runtime.tensorrt.library import Library

_log = logging.getLogger(__name__)

_MAX_CACHE_BYTES = 2**30


def builder_config(library: Library, builder: Any, network: Any, settings: TensorRTSettings) -> Any:
    """Make the configuration of a build.

    Args:
        library: The TensorRT that compiles.
        builder: Its builder.
        network: The parsed graph; TensorRT 8.6 gets the precisions of its layers here.
        settings: Settings of the target.

    Returns:
        The configuration, an object of the library.

    Raises:
        BackendError: If the library does not build for one of the compute capabilities.
    """
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


def set_batch(builder: Any, network: Any, config: Any, batch: BatchProfile) -> None:
    """Set the numbers of images that the engine takes; BackendError if the graph does not take them."""
    images = network.get_input(0)
    image = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((count, *image) for count in (batch.min, batch.opt, batch.max)))
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(
            f"the graph does not take batches of {batch.min} to {batch.max} images: export it again"
        )


def read_timings(config: Any, file: Path) -> None:
    """Give the builder the timings of earlier builds; it checks that they are of this GPU and version."""
    content = b""
    try:
        if file.is_file() and file.stat().st_size <= _MAX_CACHE_BYTES:
            content = file.read_bytes()
    except OSError:
        content = b""  # what cannot be read is measured again
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        _log.info("the timing cache %s is of another GPU or version: measuring anew", file)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: Any, file: Path) -> None:
    """Write the timings for later builds; the engine is built by now, so an error is only logged."""
    try:
        with replace_file(file) as partial:
            partial.write_bytes(memoryview(config.get_timing_cache().serialize()))
    except (OSError, EdgeadError) as error:
        _log.info("timings not kept: %s", error)
