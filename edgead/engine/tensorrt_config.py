"""Configures TensorRT's builder: the settings of a target for each version, and the timing cache.

TensorRT 10 and newer, and TensorRT for RTX, compute in the types of the graph. TensorRT 8.6 does not: as soon as FP16
is allowed, its builder may choose float16 for any layer. Therefore layers with float32 outputs are constrained to
float32 if FP16 is allowed. A graph with Q/DQ pairs is an exception, because the builder may fuse such a layer into an
INT8 layer. In such a graph the builder may still choose float16 for any layer.
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
        library: Library that compiles.
        builder: Builder of the library.
        network: Parsed graph. For TensorRT 8.6 the precisions of its layers are set here.
        settings: Settings of the target.

    Returns:
        The configuration, an object of the library.

    Raises:
        BackendError: If the library cannot build for one of the compute capabilities.
    """
    trt = library.module
    config = builder.create_builder_config()
    # TF32 is on by default and rounds float32 to 10 bits, but the engine must compute the results of the graph.
    config.clear_flag(trt.BuilderFlag.TF32)
    if not library.strongly_typed:
        _allow_precisions(trt, network, config)
        # A session has a context for each batch size. Newer versions share the profile without a setting.
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
                raise BackendError(
                    f"{library.name} does not build for {target.name} ({library.said()})",
                    hint="leave it out of compute_capabilities in the target",
                )
    return config


def _allow_precisions(trt: Any, network: Any, config: Any) -> None:
    """Allow the builder of 8.6 the types of the graph, and constrain the float32 layers of a float16 graph."""
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
    # Constants and shapes compute nothing, and a plugin declares its own types.
    free = {trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.PLUGIN_V2}
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for layer, dtypes in zip(layers, given, strict=True):
        if dtypes == {trt.float32} and layer.type not in free:
            layer.precision = trt.float32


def set_batch(builder: Any, network: Any, config: Any, batch: BatchProfile) -> None:
    """Set the numbers of images that the engine takes in one batch.

    Args:
        builder: Builder of the library.
        network: Parsed graph.
        config: Configuration of the build, changed in place.
        batch: Numbers of images.

    Raises:
        BackendError: If the graph does not take these numbers of images.
    """
    images = network.get_input(0)
    image = tuple(images.shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((count, *image) for count in (batch.min, batch.opt, batch.max)))
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(
            f"the graph does not take batches of {batch.min} to {batch.max} images",
            hint="export it again with 'edgead build'",
        )


def read_timings(config: Any, file: Path) -> None:
    """Give the builder the timings of earlier builds. The builder checks that they fit its GPU and version.

    Args:
        config: Configuration of the build, changed in place.
        file: Timing cache. If it is missing or unreadable, everything is measured.
    """
    content = b""
    try:
        if file.is_file() and file.stat().st_size <= _MAX_CACHE_BYTES:
            content = file.read_bytes()
    except OSError:
        content = b""  # timings that cannot be read are measured again
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        _log.info("the timing cache %s is of another GPU or version: measuring anew", file)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: Any, file: Path) -> None:
    """Write the timings for later builds. An error is only logged, because the engine is complete.

    Args:
        config: Configuration of the finished build.
        file: Timing cache to write.
    """
    try:
        with replace_file(file) as partial:
            partial.write_bytes(memoryview(config.get_timing_cache().serialize()))
    except (OSError, EdgeadError) as error:
        _log.info("timings not kept: %s", error)
