"""An engine file in TensorRT's hands: deserialised once, then asked for execution contexts.

What differs between TensorRT 8.6, 10, 11 and TensorRT for RTX when an engine is run is said here and nowhere else:

- A context for each size of batch, because a captured CUDA graph is bound to the shapes of its context (NVIDIA's
  advice: one context for each graph, all on the same scratch memory). TensorRT 8.6 gives the one profile to a second
  context only when the engine was built with PreviewFeature.PROFILE_SHARING_0806; newer ones always do.
- TensorRT is captured by the session. TensorRT for RTX captures by itself, as its documentation advises for free
  shapes, since it swaps kernels while it runs, and lets others capture only engines that were built for that. Its
  kernels are compiled before they run (EAGER): with its default the first images would go through other kernels than
  the later ones, and a score would depend on when it was asked for.

An engine that ends in features is one with edgead's kernels here: they are queued on the same stream, right behind it.
Where the session captures, its CUDA graph holds both. TensorRT for RTX launches a graph that it captured itself, into
which nobody else's work can be put; there the kernels are two launches behind that graph.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgead.errors import BackendError, vendor_errors
from edgead.runtime.base import graph_inputs, graph_outputs
from edgead.runtime.tensorrt.kernel_head import KernelHead
from edgead.runtime.tensorrt.rtx_cache import cache_file, read_cache, write_cache
from edgead.types import TensorSpec

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize
    from edgead.plugin.launches import Launch
    from edgead.runtime.tensorrt.cuda import Gpu, Memory, Stream
    from edgead.runtime.tensorrt.engine_record import EngineRecord
    from edgead.runtime.tensorrt.feature_record import FeatureRecord
    from edgead.runtime.tensorrt.library import Library

_log = logging.getLogger(__name__)

_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What runs batches of one size: TensorRT's context, and the launches behind it."""

    context: Any
    launches: tuple[Launch, ...]


class LoadedEngine:
    """A deserialised engine; used inside `Gpu.entered`.

    Args:
        content: Content of the engine file.
        name: Name of that file, for messages.
        library: The TensorRT that opens it.
        gpu: The GPU that it runs on.
        size: Size of the images that it must take.
        record: Record of the engine. Its features are the outputs in place of map and score. A version-compatible
            engine may bring code for the processor: NVIDIA's runtime, and the library of its plugin.
        rebuild: Command line that builds it anew.
        cuda_graphs: Whether TensorRT for RTX captures; other engines are captured by the caller.

    Attributes:
        batch: Smallest, best and largest number of images.
        bytes_of_image: GPU memory for each image beside images, map and score, in bytes by name.
        scratch_bytes: GPU memory for all of them together.

    Raises:
        BackendError: If it cannot be deserialised, or is not `images` uint8 (N, H, W, 3) -> features, or `anomaly_map`
            float32 (N, 1, H, W), `anomaly_score` float32 (N,).
    """

    def __init__(
        self,
        content: bytes,
        name: str,
        library: Library,
        gpu: Gpu,
        size: ModelSize,
        record: EngineRecord,
        rebuild: str,
        cuda_graphs: bool,
    ) -> None:
        features = record.features
        self._name, self._rebuild, self._library, self._gpu = name, rebuild, library, gpu
        self._trt: Any = library.module
        self._size = size
        self._outputs = graph_outputs(size.height_px, size.width_px) if features is None else features.outputs
        self._config: Any = None
        self._cache: Any = None
        self._contexts = 0
        self.captures_itself = library.for_rtx
        # What it complained of before is not about this engine.
        library.said()
        with self._errors("cannot load"):
            self._runtime: Any = self._trt.Runtime(library.logger)
            if record.version_compatible:
                self._runtime.engine_host_code_allowed = True
            self._engine: Any = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                raise self.failure("cannot load", len(content))
            self.batch = self._check_tensors()
            self.scratch_bytes = self._scratch_bytes()
            if library.for_rtx:
                self._configure(content, cuda_graphs)
        self._head = None if features is None else self._kernels(features)
        self.bytes_of_image = {} if self._head is None else self._head.bytes_of_image()

    def context(
        self, batch: int, addresses: Mapping[str, int], scratch: Memory | None, stream: Stream
    ) -> Prepared:
        """A new execution context for batches of this size.

        addresses: by name, in GPU memory and aligned to 256 bytes, of `images`, `anomaly_map`, `anomaly_score` and what
        `bytes_of_image` names. scratch: memory of `scratch_bytes`
        that all contexts may share, because only one runs at a time. stream: the one that it will run on.
        """
        what = f"cannot prepare a batch of {batch} for"
        with self._errors(what):
            context = self._new_context(stream)
            if context is None:
                raise self.failure(what, self.scratch_bytes)
            self._contexts += 1
            if scratch is not None and hasattr(context, "set_device_memory"):
                context.set_device_memory(scratch.pointer, scratch.size)
            elif scratch is not None:
                context.device_memory = scratch.pointer
            done = context.set_input_shape("images", (batch, self._size.height_px, self._size.width_px, 3))
            for tensor in ("images", *(spec.name for spec in self._outputs)):
                done = context.set_tensor_address(tensor, addresses[tensor]) and done
            if not done:
                raise self.failure(what)
            for spec in self._outputs:
                shape, expected = tuple(context.get_tensor_shape(spec.name)), (batch, *spec.shape[1:])
                if shape != expected:
                    raise BackendError(
                        f"{self._name} gives {spec.name} {shape} for {batch} images, not {expected}: "
                        f"rebuild it with {self._rebuild}"
                    )
        return Prepared(context, () if self._head is None else self._head.plan(batch, addresses))

    def enqueue(self, prepared: Prepared, stream: Stream) -> bool:
        """Queue one inference; False where TensorRT refuses, which while capturing may be for that alone."""
        with self._errors("TensorRT failed on"):
            queued = bool(prepared.context.execute_async_v3(stream.handle))
        if queued and self._head is not None:
            self._head.enqueue(prepared.launches, stream)
        return queued

    def failure(self, what: str = "TensorRT failed on", size: int = 0) -> BackendError:
        """The error for a call that gave nothing, with what TensorRT said; size: bytes of GPU memory it asked for."""
        said = self._library.said()
        if re.search(r"out ?of ?memory", said, re.IGNORECASE):
            return self._gpu.out_of_memory(self._name, size)
        if "exists already" in said:
            # Not seen of an engine that carries its plugin: a runtime's registry is its own. But that is not promised.
            return BackendError(
                f"{what} {self._name} ({said}): the plugin is in this process for another engine; open this one in a "
                "process of its own"
            )
        return BackendError(f"{what} {self._name} ({said}): rebuild it with {self._rebuild}")

    def said(self) -> str:
        """What TensorRT complained of since the last question."""
        return self._library.said()

    def close(self) -> None:
        """Free it, after its contexts; keep the kernels that TensorRT for RTX compiled. Twice is fine."""
        cache, self._cache = self._cache, None
        if cache is not None:
            try:
                content = bytes(memoryview(cache.serialize()))
            except Exception as error:
                # As where the file cannot be written: it costs the next start some seconds.
                _log.info("kernels of %s not kept: %s", self._name, error)
            else:
                if content != self._cached:
                    write_cache(self._cache_file, content)
        # In the order in which they know each other.
        del cache
        self._head = self._config = self._engine = self._runtime = None

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return vendor_errors(f"{what} {self._name}", f"rebuild it with {self._rebuild}")

    def _check_tensors(self) -> tuple[int, int, int]:
        """Smallest, best and largest batch, once inputs and outputs are what every graph has."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        inputs = [
            specs[name] for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        ]
        height_px, width_px = self._size.height_px, self._size.width_px
        if inputs != list(graph_inputs(height_px, width_px)):
            raise BackendError(
                f"{self._name} takes {_text(inputs)}, not {_text(graph_inputs(height_px, width_px))}: "
                f"rebuild it with {self._rebuild}"
            )
        outputs = [specs[name] for name in sorted(specs) if specs[name] not in inputs]
        # Their sizes are compared when a batch's size is known: a graph may leave them open until then.
        if [(spec.name, spec.dtype) for spec in outputs] != sorted(
            (spec.name, spec.dtype) for spec in self._outputs
        ):
            raise BackendError(
                f"{self._name} gives {_text(outputs)}, not {_text(self._outputs)}: rebuild it with {self._rebuild}"
            )
        smallest, best, largest = (int(shape[0]) for shape in engine.get_tensor_profile_shape("images", 0))
        return smallest, best, largest

    def _spec(self, name: str) -> TensorSpec:
        dtype = self._engine.get_tensor_dtype(name).name
        # The number of images is free in every graph, even where an engine was built for one number alone.
        shape = (None, *(int(length) for length in tuple(self._engine.get_tensor_shape(name))[1:]))
        return TensorSpec(name, _DTYPES.get(dtype, dtype), shape)

    def _kernels(self, features: FeatureRecord) -> KernelHead:
        head, size = features.head, self._size
        if (head.height, head.width) != (size.height_px, size.width_px):
            raise BackendError(
                f"the head of {self._name} is for maps of {head.height}x{head.width}, and its images have "
                f"{size.height_px}x{size.width_px}: rebuild it with {self._rebuild}"
            )
        return KernelHead(features)

    def _scratch_bytes(self) -> int:
        engine = self._engine
        size = (
            engine.device_memory_size_v2
            if hasattr(engine, "device_memory_size_v2")
            else engine.device_memory_size
        )
        return int(size)

    def _new_context(self, stream: Stream) -> Any:
        if self._config is not None:
            return self._engine.create_execution_context(self._config)
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        if strategies is not None:
            return self._engine.create_execution_context(strategies.USER_MANAGED)
        context = self._engine.create_execution_context_without_device_memory()
        if context is not None and self._contexts > 0:
            # TensorRT 8.6 chooses the profile by itself for the first context alone.
            context.set_optimization_profile_async(0, stream.handle)
            stream.synchronise()
        return context

    def _configure(self, content: bytes, cuda_graphs: bool) -> None:
        """How TensorRT for RTX shall compile, capture and keep what it compiled."""
        trt = self._trt
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        strategies = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategies.DISABLED
        self._cache = config.create_runtime_cache()
        self._cache_file = cache_file(content, self._gpu.compute_capability)
        self._cached = read_cache(self._cache_file)
        if self._cached and not self._cache.deserialize(self._cached):
            # Of another version, driver or GPU: what this one compiles takes its place.
            self._cached = b""
        if not config.set_runtime_cache(self._cache):
            raise self.failure("cannot load")
        self._config = config


def _text(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(
        f"{spec.name} {spec.dtype} ({', '.join('N' if length is None else str(length) for length in spec.shape)})"
        for spec in specs
    )
