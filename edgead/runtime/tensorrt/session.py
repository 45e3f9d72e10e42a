"""TensorRT and TensorRT for RTX: an engine on the GPU, behind the protocol that every backend has.

A session holds an engine, the buffers for its largest batch and one stream. For each batch size it creates, at first
use, a context and, if the work can be captured, a CUDA graph. After that an inference of this size allocates memory
only for its results. The images are copied to the engine's input, from the host through pinned memory or from an array
on the GPU. Then one graph is launched, and map and score are copied back.

An engine may compute the anomaly map with a plugin, which must be in the process before the engine is opened. An engine
that carries its plugin registers it in a registry of its own, and the library of the user is not needed.

An array on the GPU never passes through the host. It is copied on the GPU into the input that the graph was captured
with: a captured address is fixed, and TensorRT needs an alignment of 256 bytes, which a part of an array does not have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgead.errors import BackendError, InputError
from edgead.plugin.loader import load_plugin_of_engine
from edgead.runtime.base import SizedSession, check_batch
from edgead.runtime.tensorrt.cuda import Gpu, Memory
from edgead.runtime.tensorrt.device_array import DeviceArray, device_array, is_device_array, streams_of
from edgead.runtime.tensorrt.engine import LoadedEngine
from edgead.runtime.tensorrt.engine_record import check_fits, this_platform
from edgead.runtime.tensorrt.library import check_engine, load_library
from edgead.types import Prediction, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize
    from edgead.runtime.tensorrt.cuda_stream import Graph
    from edgead.runtime.tensorrt.engine_record import EngineRecord
    from edgead.runtime.tensorrt.library import Library

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ExecutionSlot:
    """The prepared work for one batch size: its context, and its graph if there is one."""

    context: Any
    graph: Graph | None


class TensorRTSession(SizedSession):
    """A `Session` on a TensorRT engine, on the current GPU of the calling thread; used by one thread at a time.

    Args:
        engine: Path of the engine file.
        record: Record of the engine, from its ``engine.json``.
        size: Image size that the engine must take.
        rebuild: Command line that rebuilds the engine, for messages.
        cuda_graphs: Whether the work of each batch size is captured in a CUDA graph and replayed.
        read: Function that returns the content of the engine file; None to read the file. A bundle's function returns
            the bytes whose hash it checked.

    Raises:
        BackendError: If the engine was built for another platform, library, version or GPU, which is checked before
            the engine is read. If library, driver, GPU or memory is missing, or a plugin that the engine needs and does
            not carry. If the engine does not load, or is not `images` uint8 (N, H, W, 3) -> `anomaly_map` float32
            (N, 1, H, W), `anomaly_score` float32 (N,), or the features of its record.
    """

    def __init__(
        self,
        engine: Path,
        record: EngineRecord,
        size: ModelSize,
        rebuild: str,
        cuda_graphs: bool = True,
        read: Callable[[], bytes] | None = None,
    ) -> None:
        self._name = str(engine)
        self._height_px, self._width_px = size.height_px, size.width_px
        self._cuda_graphs = cuda_graphs
        self._slots: dict[int, _ExecutionSlot] = {}
        library, self._gpu = _fitting(record, rebuild)
        content = _read(engine, rebuild) if read is None else read()
        if record.plugin_sha256 is not None and not record.carries_plugin:
            load_plugin_of_engine(record.plugin_sha256, rebuild)
        with self._gpu.entered(), ExitStack() as resources:
            check_engine(library, content, self._name, rebuild)
            self._stream = self._gpu.stream()
            resources.callback(self._stream.close)
            self._engine = LoadedEngine(
                content, self._name, library, self._gpu, size, record, rebuild, cuda_graphs
            )
            resources.callback(self._engine.close)
            if self._engine.batch != record.batch:
                raise BackendError(
                    f"{self._name} takes batches of {self._engine.batch} (smallest, best, largest), and its "
                    f"engine.json has {record.batch}",
                    hint=f"rebuild it with {rebuild}",
                )
            self._allocate(resources)
            resources.callback(self._drop_slots)
            self._resources: ExitStack | None = resources.pop_all()

    def infer(self, batch: Any, stream: Any = None) -> Prediction:
        """Score a batch.

        An array on the GPU may still be written by work that is queued. On the GPU, the session waits for the work in
        `stream` and in the stream that the array itself names; if there is neither, in the default stream.

        Args:
            batch: (N, H, W, 3) uint8 RGB at the model's size, N >= 1: a NumPy array, or a C-contiguous array with
                `__cuda_array_interface__` on the same GPU. If N exceeds the largest batch of the engine, the images
                are scored in several batches.
            stream: Stream that writes an array on the GPU: a handle, a stream of PyCUDA or CuPy, or an object with
                `__cuda_stream__`. It must belong to the primary context of the device.

        Returns:
            Anomaly maps and scores of the N images, in host memory.

        Raises:
            InputError: If the batch has another shape, dtype or layout, `stream` is no stream, or it is given with a
                NumPy array.
            BackendError: If the session is closed, the stream belongs to another context, TensorRT fails, or GPU
                memory is missing.
        """
        if self._resources is None:
            raise BackendError(f"the session of {self._name} is closed", hint="open the bundle again")
        array = device_array(batch) if is_device_array(batch) else None
        if array is None and stream is not None:
            raise InputError(
                "a stream is given with a NumPy array", hint="leave stream out, or give an array on the GPU"
            )
        check_batch(batch if array is None else array.like, self._height_px, self._width_px)
        waited_for = () if array is None else streams_of(array, stream)
        count = len(batch) if array is None else array.shape[0]
        maps = np.empty((count, 1, self._height_px, self._width_px), np.float32)
        scores = np.empty(count, np.float32)
        with self._gpu.entered():
            try:
                for handle in waited_for:
                    self._stream.wait_for(handle)
                for start, stop, run in chunks(count, *self._engine.batch[::2]):
                    if array is None:
                        self._load_from_host(batch[start:stop])
                    else:
                        self._load_from_gpu(array, start, stop)
                    self._run(run)
                    self._fetch(maps[start:stop], scores[start:stop])
            except BaseException:
                # The GPU may still read the caller's array, and the caller may free it after this call.
                with suppress(BackendError):
                    self._stream.synchronise()
                raise
            # Already now, because a process that is killed closes no session.
            self._engine.keep_kernels()
        return Prediction(anomaly_map=maps, anomaly_score=scores)

    def close(self) -> None:
        """Free engine, memory and graphs, and cache the kernels that TensorRT for RTX compiled.

        It may be called twice.

        Raises:
            BackendError: If the driver fails.
        """
        resources, self._resources = self._resources, None
        if resources is not None:
            with self._gpu.entered():
                resources.close()

    def _allocate(self, resources: ExitStack) -> None:
        """Allocate all memory once, for the largest batch."""
        largest = self.largest_batch = self._engine.batch[2]
        self._image_bytes = self._height_px * self._width_px * 3
        map_bytes = self._height_px * self._width_px * 4
        sizes = {"images": self._image_bytes, "anomaly_map": map_bytes, "anomaly_score": 4}
        self._on_gpu: dict[str, Memory] = {}
        for name, size in {**sizes, **self._engine.bytes_of_image}.items():
            memory = self._gpu.device_memory(largest * size, f"{name} of {largest} images")
            resources.callback(memory.close)
            self._on_gpu[name] = memory
        self._scratch = None
        if self._engine.scratch_bytes:
            self._scratch = self._gpu.device_memory(
                self._engine.scratch_bytes, f"scratch of {largest} images"
            )
            resources.callback(self._scratch.close)
        self._on_host = {
            name: self._gpu.pinned_memory(largest * size, f"{name} of {largest} images")
            for name, size in sizes.items()
        }
        for pinned in self._on_host.values():
            resources.callback(pinned.close)
        shape = (largest, self._height_px, self._width_px)
        self._images = self._on_host["images"].array.reshape(*shape, 3)
        self._map = self._on_host["anomaly_map"].array.view(np.float32).reshape(largest, 1, *shape[1:])
        self._score = self._on_host["anomaly_score"].array.view(np.float32)

    def _load_from_host(self, images: UInt8Array) -> None:
        """Queue the copy of NumPy images, at most a largest batch, into the engine's input."""
        np.copyto(self._images[: len(images)], images)
        source, target = self._on_host["images"], self._on_gpu["images"]
        self._stream.copy(target.pointer, source.pointer, len(images) * self._image_bytes)

    def _load_from_gpu(self, array: DeviceArray, start: int, stop: int) -> None:
        """Queue the copy of the images start to stop of an array on the GPU into the engine's input."""
        source = array.pointer + start * self._image_bytes
        self._stream.copy(self._on_gpu["images"].pointer, source, (stop - start) * self._image_bytes)

    def _run(self, size: int) -> None:
        """Queue the work on a batch of `size` images."""
        slot = self._slots.get(size)
        if slot is None:
            slot = self._slots[size] = self._prepare(size)
        if slot.graph is not None:
            self._stream.launch(slot.graph)
        elif not self._engine.enqueue(slot.context, self._stream):
            raise self._engine.failure()

    def _prepare(self, size: int) -> _ExecutionSlot:
        """Create the context and, if possible, the CUDA graph of a batch size."""
        addresses = {name: memory.pointer for name, memory in self._on_gpu.items()}
        context = self._engine.context(size, addresses, self._scratch, self._stream)
        if not self._cuda_graphs or self._engine.captures_itself:
            return _ExecutionSlot(context, None)
        # Run once without a capture: the work of TensorRT at the first use of a shape is no part of the graph.
        if not self._engine.enqueue(context, self._stream):
            raise self._engine.failure()
        self._stream.synchronise()
        graph = self._stream.capture(lambda: self._engine.enqueue(context, self._stream))
        if graph is None:
            _log.warning("%s runs without CUDA graphs: %s", self._name, self._engine.said())
        return _ExecutionSlot(context, graph)

    def _fetch(self, maps: Any, scores: Any) -> None:
        """Copy results into arrays (n, 1, H, W) and (n,), and wait for them."""
        count = len(scores)
        for name, size in (("anomaly_map", maps.nbytes), ("anomaly_score", scores.nbytes)):
            self._stream.copy(self._on_host[name].pointer, self._on_gpu[name].pointer, size)
        self._stream.synchronise()
        maps[:] = self._map[:count]
        scores[:] = self._score[:count]

    def _drop_slots(self) -> None:
        """Free all CUDA graphs and forget the contexts."""
        for slot in self._slots.values():
            if slot.graph is not None:
                slot.graph.close()
        self._slots.clear()


def chunks(count: int, smallest: int, largest: int) -> Iterator[tuple[int, int, int]]:
    """Split a batch into the batches that an engine runs.

    Args:
        count: Number of images.
        smallest: Smallest batch of the engine. Fewer images run in a batch of this size.
        largest: Largest batch of the engine.

    Yields:
        First image, end (exclusive) and batch size to run.
    """
    for start in range(0, count, largest):
        yield start, min(start + largest, count), max(min(count - start, largest), smallest)


def _fitting(record: EngineRecord, rebuild: str) -> tuple[Library, Gpu]:
    """Return the library and the GPU of this machine; BackendError if the engine was not built for them.

    The cheapest checks come first: a wrong platform is refused without the library, a wrong version without a GPU.
    """
    platform, built_on = this_platform(), record.compute_capabilities[0]
    check_fits(record, record.library_version, platform, built_on, rebuild)
    library = load_library("tensorrt-rtx" if record.backend == "tensorrt-rtx" else "tensorrt")
    check_fits(record, library.version_text, platform, built_on, rebuild)
    gpu = Gpu()
    major, minor = gpu.compute_capability
    check_fits(record, library.version_text, platform, f"{major}.{minor}", rebuild)
    return library, gpu


def _read(engine: Path, rebuild: str) -> bytes:
    """Return the content of an engine file; BackendError if it cannot be read."""
    try:
        return engine.read_bytes()
    except OSError as error:
        raise BackendError(f"cannot read {engine} ({error})", hint=f"rebuild it with {rebuild}") from error
