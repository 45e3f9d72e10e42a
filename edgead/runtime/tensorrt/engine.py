"""An engine that TensorRT deserialised, and its execution contexts.

The differences between TensorRT 8.6, 10, 11 and TensorRT for RTX in running an engine are in this module only:

- Each batch size has its own context, because a captured CUDA graph is bound to the shapes of its context. NVIDIA
  advises one context for each graph, all on the same scratch memory. In TensorRT 8.6 a second context can use the one
  profile only if the engine was built with PreviewFeature.PROFILE_SHARING_0806; in newer versions it always can.
- The session captures the work of TensorRT in CUDA graphs. TensorRT for RTX captures by itself, as its documentation
  advises for dynamic shapes: it swaps kernels while it runs, and others may capture only engines that were built for
  that. Its kernels are compiled before they run (EAGER). By default the first images would run through other kernels
  than later images, and a score would depend on the time of the call.

If an engine ends in features, the kernels of edgead are queued on the same stream, directly behind the engine. If the
session captures, its CUDA graph holds both. TensorRT for RTX launches a graph that it captured itself, and no other
work can be added to it; there the kernels are two launches behind that graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgead.errors import BackendError, vendor_errors
from edgead.runtime.base import graph_inputs, graph_outputs, specs_text
from edgead.runtime.tensorrt.kernel_head import KernelHead
from edgead.runtime.tensorrt.rtx_cache import KernelCache, cache_file

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize
    from edgead.plugin.launches import Launch
    from edgead.runtime.tensorrt.cuda import Gpu, Memory
    from edgead.runtime.tensorrt.cuda_stream import Stream
    from edgead.runtime.tensorrt.engine_record import EngineRecord
    from edgead.runtime.tensorrt.feature_record import FeatureRecord
    from edgead.runtime.tensorrt.library import Library


@dataclass(frozen=True, slots=True)
class Prepared:
    """The prepared work for batches of one size.

    Attributes:
        context: Execution context of TensorRT.
        launches: Launches of the kernels behind the engine; empty if it ends in map and score.
    """

    context: Any
    launches: tuple[Launch, ...]


class LoadedEngine:
    """A deserialised engine; used inside `Gpu.entered`.

    Args:
        content: Content of the engine file.
        name: Name of that file, for messages.
        library: Library that opens the engine.
        gpu: GPU that the engine runs on.
        size: Size of the images that the engine must take.
        record: Record of the engine. If it has features, they are the outputs in place of map and score. A
            version-compatible engine may contain code for the CPU: NVIDIA's runtime, and the library of its plugin.
        rebuild: Command line that rebuilds the engine.
        cuda_graphs: Whether TensorRT for RTX captures CUDA graphs; other engines are captured by the caller.

    Attributes:
        batch: Smallest, best and largest number of images.
        bytes_of_image: GPU memory for each image in addition to images, map and score, in bytes by name.
        scratch_bytes: GPU memory that all contexts share, in bytes.
        captures_itself: Whether the library captures CUDA graphs by itself.

    Raises:
        BackendError: If the engine cannot be deserialised, or is not `images` uint8 (N, H, W, 3) -> features, or
            `anomaly_map` float32 (N, 1, H, W), `anomaly_score` float32 (N,).
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
        self._cache: KernelCache | None = None
        self._contexts = self._contexts_kept = 0
        self.captures_itself = library.for_rtx
        # Earlier complaints are not about this engine.
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
        """Create an execution context for one batch size.

        Args:
            batch: Number of images.
            addresses: Addresses in GPU memory, aligned to 256 bytes, by name: `images`, `anomaly_map`,
                `anomaly_score` and the names of `bytes_of_image`.
            scratch: Memory of `scratch_bytes`, which all contexts share, as only one runs at a time; None for 0.
            stream: Stream that the context will run on.

        Returns:
            The context, and the launches of the kernels behind it.

        Raises:
            BackendError: If TensorRT fails, an output has another shape, or the kernels do not support the features.
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
                        f"{self._name} gives {spec.name} {shape} for {batch} images, not {expected}",
                        hint=f"rebuild it with {self._rebuild}",
                    )
        return Prepared(context, () if self._head is None else self._head.plan(batch, addresses))

    def enqueue(self, prepared: Prepared, stream: Stream) -> bool:
        """Queue one inference.

        Args:
            prepared: Context and launches from `context`.
            stream: Stream to queue the work in.

        Returns:
            False if TensorRT refuses. During a capture, the capture itself may be the reason.

        Raises:
            BackendError: If the bindings raise an exception.
        """
        with self._errors("TensorRT failed on"):
            queued = bool(prepared.context.execute_async_v3(stream.handle))
        if queued and self._head is not None:
            self._head.enqueue(prepared.launches, stream)
        return queued

    def failure(self, what: str = "TensorRT failed on", size: int = 0) -> BackendError:
        """Create the error for a call that returned nothing, with the complaints of TensorRT.

        Args:
            what: Failure, to which the name of the engine is added.
            size: GPU memory that the call needed, in bytes.

        Returns:
            The error, to be raised by the caller.
        """
        said = self._library.said()
        if re.search(r"out ?of ?memory", said, re.IGNORECASE):
            return self._gpu.out_of_memory(self._name, size)
        if "exists already" in said:
            # Never seen for an engine that carries its plugin, as each runtime has its own registry; not promised.
            return BackendError(
                f"{what} {self._name} ({said}); this process has the plugin already, for another engine",
                hint="open this engine in a process of its own",
            )
        return BackendError(f"{what} {self._name} ({said})", hint=f"rebuild it with {self._rebuild}")

    def said(self) -> str:
        """Return the complaints of TensorRT since the last call, see `Library.said`."""
        return self._library.said()

    def keep_kernels(self) -> None:
        """Cache the kernels that TensorRT for RTX compiled for new batch sizes; nothing happens for other engines."""
        if self._cache is not None and self._contexts > self._contexts_kept:
            self._contexts_kept = self._contexts
            self._cache.keep()

    def close(self) -> None:
        """Free the engine, after its contexts, and cache the kernels of TensorRT for RTX; may be called twice."""
        if self._cache is not None:
            self._cache.keep()
        # In this order, because each of them refers to the next one.
        self._cache = None
        self._head = self._config = self._engine = self._runtime = None

    def _errors(self, what: str) -> AbstractContextManager[None]:
        """Translate exceptions of the bindings in a block into BackendError."""
        return vendor_errors(f"{what} {self._name}", f"rebuild it with {self._rebuild}")

    def _check_tensors(self) -> tuple[int, int, int]:
        """Check the inputs and outputs of the engine, and return its smallest, best and largest batch."""
        inputs, outputs = self._library.tensors(self._engine)
        height_px, width_px = self._size.height_px, self._size.width_px
        if inputs != list(graph_inputs(height_px, width_px)):
            raise BackendError(
                f"{self._name} takes {specs_text(inputs)}, not {specs_text(graph_inputs(height_px, width_px))}",
                hint=f"rebuild it with {self._rebuild}",
            )
        # Shapes are compared in `context`, when the batch size is known: a graph may leave them open until then.
        if [(spec.name, spec.dtype) for spec in outputs] != sorted(
            (spec.name, spec.dtype) for spec in self._outputs
        ):
            raise BackendError(
                f"{self._name} gives {specs_text(outputs)}, not {specs_text(self._outputs)}",
                hint=f"rebuild it with {self._rebuild}",
            )
        smallest, best, largest = (
            int(shape[0]) for shape in self._engine.get_tensor_profile_shape("images", 0)
        )
        return smallest, best, largest

    def _kernels(self, features: FeatureRecord) -> KernelHead:
        """Create the head behind the engine; BackendError if its maps have another size than the images."""
        head, size = features.head, self._size
        if (head.height, head.width) != (size.height_px, size.width_px):
            raise BackendError(
                f"the head of {self._name} is for maps of {head.height}x{head.width}, and its images have "
                f"{size.height_px}x{size.width_px}",
                hint=f"rebuild it with {self._rebuild}",
            )
        return KernelHead(features)

    def _scratch_bytes(self) -> int:
        """Return the size of the scratch memory of one context, in bytes."""
        engine = self._engine
        size = (
            engine.device_memory_size_v2
            if hasattr(engine, "device_memory_size_v2")
            else engine.device_memory_size
        )
        return int(size)

    def _new_context(self, stream: Stream) -> Any:
        """Create an execution context without memory of its own; None if TensorRT refuses."""
        if self._config is not None:
            return self._engine.create_execution_context(self._config)
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        if strategies is not None:
            return self._engine.create_execution_context(strategies.USER_MANAGED)
        context = self._engine.create_execution_context_without_device_memory()
        if context is not None and self._contexts > 0:
            # TensorRT 8.6 chooses the profile by itself only for the first context.
            context.set_optimization_profile_async(0, stream.handle)
            stream.synchronise()
        return context

    def _configure(self, content: bytes, cuda_graphs: bool) -> None:
        """Set how TensorRT for RTX compiles, captures and caches its kernels."""
        trt = self._trt
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        strategies = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategies.DISABLED
        cache = config.create_runtime_cache()
        self._cache = KernelCache(cache, cache_file(content, self._gpu.compute_capability))
        if not config.set_runtime_cache(cache):
            raise self.failure("cannot load")
        self._config = config
