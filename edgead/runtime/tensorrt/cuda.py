"""The GPU: its driver, memory, stream, events and graphs, as little of them as a session needs.

With `edgead.plugin`, which compiles and launches kernels, the only room that imports cuda.core, NVIDIA's own library,
and the driver bindings it stands on. Device, context,
stream and event are cuda.core's. Memory comes from the driver itself, because a pool would keep what a closed
session gives back; graphs too, because after a refused capture the stream must be usable, which cuda.core's builder
does not promise.

Everything lives in the primary context of the device, which torch, CuPy, Numba and CUDA's runtime share. It is pushed
for each piece of work and popped after it, so that a thread keeps whatever context it had.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgead.errors import BackendError, vendor_errors
from edgead.types import UInt8Array

_MIB = 2**20
_HINT_MEMORY = "build the engine with a smaller batch in its target, or close other programs on the GPU"
_HINT_CALL = "start the program again; if it stays so, see what 'edgead doctor' and nvidia-smi say"


class Gpu:
    """The current device of the calling thread, by default the first one that CUDA_VISIBLE_DEVICES leaves.

    name: as the driver tells it. compute_capability: major, minor. cuda_version: newest CUDA that the driver serves.
    Raises BackendError when cuda.core or the driver is missing, the driver is too old, or there is no GPU.
    """

    def __init__(self) -> None:
        core, self._driver, bindings_version = _library()
        self.cuda_version = self._check_driver(bindings_version)
        with vendor_errors("the GPU cannot be opened", _HINT_CALL):
            device = core.Device()
            before = self.call("the GPU cannot be opened", self._driver.cuCtxGetCurrent)
            device.set_current()
            # Held, so that the primary context stays alive as long as this object.
            self._context = device.context
            self.call("the GPU cannot be opened", self._driver.cuCtxSetCurrent, before)
            self.name = str(device.name)
            major, minor = device.compute_capability
        self.compute_capability = (int(major), int(minor))
        self._device = device

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make its context the calling thread's for a while; everything below is used inside this."""
        self.call("the GPU's context cannot be entered", self._driver.cuCtxPushCurrent, self._context.handle)
        try:
            yield
        finally:
            self.call("the GPU's context cannot be left", self._driver.cuCtxPopCurrent)

    def stream(self) -> Stream:
        """A new stream, on the thread that made this object; it does not wait for the default stream."""
        with vendor_errors("a stream cannot be made", _HINT_CALL):
            return Stream(self, self._device.create_stream(), self._device.create_event())

    def device_memory(self, size: int, purpose: str) -> Memory:
        """Take so many bytes on the GPU; BackendError that names purpose and size when they cannot be had."""
        driver = self._driver
        return self._memory(size, purpose, driver.cuMemAlloc, driver.cuMemFree, self.out_of_memory)

    def pinned_memory(self, size: int, purpose: str) -> PinnedMemory:
        """Take so many bytes of host memory that the GPU reads and writes by itself; raises as `device_memory`."""
        driver = self._driver
        return PinnedMemory(
            self._memory(size, purpose, driver.cuMemAllocHost, driver.cuMemFreeHost, _out_of_pinned_memory)
        )

    def free_memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory that are free, and all of them."""
        free, total = self.call("the GPU's memory cannot be asked for", self._driver.cuMemGetInfo)
        return int(free), int(total)

    def out_of_memory(self, purpose: str, size: int) -> BackendError:
        """The error for something of so many bytes that found no room."""
        free, total = self.free_memory()
        return BackendError(
            f"out of GPU memory: {purpose} needs {size / _MIB:.1f} MiB, and {free / _MIB:.0f} of "
            f"{total / _MIB:.0f} MiB on {self.name} are free: {_HINT_MEMORY}"
        )

    def call(self, what: str, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
        """Call a function of the driver: None, its result, or a tuple of them; BackendError `what` when it fails."""
        status, *results = function(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"{what} ({status.name}): {_HINT_CALL}")
        return results[0] if len(results) == 1 else tuple(results) or None

    def _memory(
        self,
        size: int,
        purpose: str,
        allocate: Callable[[int], tuple[Any, ...]],
        free: Callable[[int], tuple[Any, ...]],
        out_of_memory: Callable[[str, int], BackendError],
    ) -> Memory:
        status, pointer = allocate(size)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise out_of_memory(purpose, size)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(
                f"cannot take {size / _MIB:.1f} MiB for {purpose} ({status.name}): {_HINT_CALL}"
            )
        return Memory(int(pointer), size, lambda: self.call(f"{purpose} cannot be freed", free, int(pointer)))

    def _check_driver(self, bindings_version: str) -> str:
        """The driver's CUDA version, when there is a driver, it is new enough for the bindings, and it has a GPU."""
        try:
            version = self.call("the NVIDIA driver does not answer", self._driver.cuDriverGetVersion)
        except RuntimeError as error:
            raise BackendError(
                "no NVIDIA driver: libcuda cannot be loaded; install the driver of your GPU, in a container start it "
                "with --gpus all, or use the backend onnxruntime"
            ) from error
        text = f"{version // 1000}.{version % 1000 // 10}"
        if version // 1000 < int(bindings_version.partition(".")[0]):
            major = version // 1000
            raise BackendError(
                f"the NVIDIA driver is too old: it serves CUDA {text}, and cuda-bindings {bindings_version} is "
                f"installed: update the driver, or pip install 'cuda-bindings=={major}.*'"
            )
        (status,) = self._driver.cuInit(0)
        if status == self._driver.CUresult.CUDA_ERROR_NO_DEVICE:
            raise BackendError(
                "the NVIDIA driver finds no GPU: see what nvidia-smi lists and what CUDA_VISIBLE_DEVICES leaves of it"
            )
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"the NVIDIA driver does not start ({status.name}): see what nvidia-smi says")
        return text


class Memory:
    """Memory that was taken; pointer: its address. size: in bytes. `close` gives it back, twice is fine."""

    def __init__(self, pointer: int, size: int, free: Callable[[], object]) -> None:
        self.pointer, self.size = pointer, size
        self._free: Callable[[], object] | None = free

    def close(self) -> None:
        """Give it back; inside `Gpu.entered`, once nothing on the GPU uses it any more."""
        free, self._free = self._free, None
        if free is not None:
            free()


class PinnedMemory(Memory):
    """Pinned host memory; array: its bytes, (size,) uint8, not to be touched after `close`."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory.pointer, memory.size, memory.close)
        self.array: UInt8Array = np.ctypeslib.as_array(
            (ctypes.c_uint8 * memory.size).from_address(memory.pointer)
        )


class Stream:
    """A queue of work on the GPU, used by one thread at a time. handle: for libraries that take one."""

    def __init__(self, gpu: Gpu, stream: Any, event: Any) -> None:
        self._gpu, self._stream, self._event = gpu, stream, event
        self._driver = gpu._driver
        self.handle = int(stream.handle)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy so many bytes between two addresses, each in pinned or in GPU memory, after what is queued."""
        what = f"copying {size} bytes to or from the GPU failed"
        self._gpu.call(what, self._driver.cuMemcpyAsync, target, source, size, self._stream.handle)

    def wait_for(self, handle: int) -> None:
        """Let later work here wait for what is queued on another stream by now; the calling thread does not wait.

        handle: of a stream in the device's primary context. BackendError for one of another context.
        """
        driver = self._driver
        (status,) = driver.cuEventRecord(self._event.handle, driver.CUstream(handle))
        if status != driver.CUresult.CUDA_SUCCESS:
            raise BackendError(
                f"stream {handle:#x} cannot be waited for ({status.name}): it was destroyed, or is of another CUDA "
                "context than the device's primary one; with PyCUDA import pycuda.autoprimaryctx, not pycuda.autoinit"
            )
        what = "waiting for another stream failed"
        self._gpu.call(what, driver.cuStreamWaitEvent, self._stream.handle, self._event.handle, 0)

    def capture(self, enqueue: Callable[[], bool]) -> Graph | None:
        """Record what `enqueue` queues here as a graph instead of running it.

        Returns None when `enqueue` returns False or does something that cannot be recorded; the stream is usable
        again. Other threads may use the GPU meanwhile.
        """
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._gpu.call("a CUDA graph cannot be begun", driver.cuStreamBeginCapture, self._stream.handle, mode)
        recorded, executable = False, None
        try:
            recorded = enqueue()
        finally:
            # Ended whatever happened, or the stream would take no other work.
            status, captured = driver.cuStreamEndCapture(self._stream.handle)
            if status == driver.CUresult.CUDA_SUCCESS:
                if recorded:
                    status, executable = driver.cuGraphInstantiate(captured, 0)
                self._gpu.call("a CUDA graph cannot be freed", driver.cuGraphDestroy, captured)
        if not recorded or status != driver.CUresult.CUDA_SUCCESS:
            return None
        return Graph(self._gpu, executable)

    def launch(self, graph: Graph) -> None:
        """Run a graph after what is queued."""
        self._gpu.call(
            "a CUDA graph cannot be run", self._driver.cuGraphLaunch, graph.executable, self._stream.handle
        )

    def synchronise(self) -> None:
        """Wait until all that is queued is done."""
        with vendor_errors("the GPU failed at its work", _HINT_CALL):
            self._stream.sync()

    def close(self) -> None:
        """Destroy it and its event."""
        with vendor_errors("a stream cannot be freed", _HINT_CALL):
            self._event.close()
            self._stream.close()


class Graph:
    """Work that was recorded and can be run again; executable: the driver's handle."""

    def __init__(self, gpu: Gpu, executable: Any) -> None:
        self._gpu, self.executable = gpu, executable

    def close(self) -> None:
        """Free it, once it does not run any more."""
        self._gpu.call("a CUDA graph cannot be freed", self._gpu._driver.cuGraphExecDestroy, self.executable)


def _out_of_pinned_memory(purpose: str, size: int) -> BackendError:
    return BackendError(
        f"out of memory that can be pinned: {purpose} needs {size / _MIB:.1f} MiB of the host's: "
        "build the engine with a smaller batch in its target, or close other programs"
    )


def _library() -> tuple[Any, Any, str]:
    """cuda.core, the driver bindings, and the version of these."""
    try:
        import cuda.core
        from cuda.bindings import __version__ as bindings_version
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendError(
            f"cannot import cuda.core ({' '.join(str(error).split())}): pip install 'edgead[tensorrt]'"
        ) from error
    return cuda.core, driver, str(bindings_version)
