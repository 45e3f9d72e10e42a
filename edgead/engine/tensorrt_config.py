"""Configures TensorRT's builder: the settings of a target for each version, and the timing cache.

TensorRT 10 and newer, and TensorRT for RTX, compute in the types of the graph. TensorRT 8.6 does not: as soon as FP16
is allowed, its builder may choose float16 for any layer. Therefore layers with float32 outputs are constrained to
float32 if FP16 is allowed. In a graph with Q/DQ pairs FP16 is always allowed beside INT8, so that what is not INT8 need
not be float32. There the builder may choose float16 for any layer up to the last convolutions, because it may fuse such
a layer into an INT8 layer. Only the head behind them is constrained to float32, because its squares would overflow.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
    """Allow the builder of 8.6 the types of the graph, and constrain the layers that must stay float32."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    given = [{layer.get_output(index).dtype for index in range(layer.num_outputs)} for layer in layers]
    quantised = any(layer.type == trt.LayerType.QUANTIZE for layer in layers)
    if quantised:
        config.set_flag(trt.BuilderFlag.INT8)
    elif not any(trt.float16 in dtypes for dtypes in given):
        return
    config.set_flag(trt.BuilderFlag.FP16)
    behind = _behind_convolutions(trt, layers) if quantised else range(len(layers))
    # Constants and shapes compute nothing, and a plugin declares its own types.
    free = {trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.PLUGIN_V2}
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in behind:
        if given[index] == {trt.float32} and layers[index].type not in free:
            layers[index].precision = trt.float32


def _behind_convolutions(trt: Any, layers: Sequence[Any]) -> list[int]:
    """Indices of the layers that no convolution and no Q/DQ pair depends on; layers are in topological order."""
    kinds = trt.LayerType
    computing = {kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.QUANTIZE, kinds.DEQUANTIZE}
    needed: set[str] = set()
    behind = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if layer.type in computing or any(
            layer.get_output(output).name in needed for output in range(layer.num_outputs)
        ):
            taken = (layer.get_input(number) for number in range(layer.num_inputs))
            needed.update(tensor.name for tensor in taken if tensor is not None)
        else:
            behind.append(index)
    return behind


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
