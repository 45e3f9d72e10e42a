"""The GPU: the parts of its driver, context and memory that a session needs; its streams are in `cuda_stream`.

Only this module and `edgead.plugin`, which compiles and launches kernels, import cuda.core, NVIDIA's own library, and
the driver bindings below it. Device, context, stream and event are objects of cuda.core. Memory comes from the driver
itself, because a memory pool would keep the memory of a closed session. Graphs come from the driver too, because the
stream must be usable after a refused capture, and the graph builder of cuda.core does not promise that.

Everything uses the primary context of the device, which torch, CuPy, Numba and CUDA's runtime share. The context is
pushed before each piece of work and popped after it, so that a thread keeps the context that it had.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgead.errors import BackendError, vendor_errors
from edgead.runtime.tensorrt.cuda_stream import HINT_CALL, Stream
from edgead.types import UInt8Array

_MIB = 2**20
_HINT_MEMORY = "build the engine with a smaller batch in its target, or close other programs on the GPU"


class Gpu:
    """The current device of the calling thread, by default the first one that CUDA_VISIBLE_DEVICES leaves.

    Attributes:
        name: Name that the driver reports.
        compute_capability: Major and minor number.
        cuda_version: Newest CUDA version that the driver supports, such as "13.0".

    Raises:
        BackendError: If cuda.core or the driver is missing, the driver is too old, or there is no GPU.
    """

    def __init__(self) -> None:
        core, self._driver, bindings_version = _library()
        self.cuda_version = self._check_driver(bindings_version)
        with vendor_errors("the GPU cannot be opened", HINT_CALL):
            device = core.Device()
            before = self.call("the GPU cannot be opened", self._driver.cuCtxGetCurrent)
            device.set_current()
            # This reference keeps the primary context alive as long as this object.
            self._context = device.context
            self.call("the GPU cannot be opened", self._driver.cuCtxSetCurrent, before)
            self.name = str(device.name)
            major, minor = device.compute_capability
        self.compute_capability = (int(major), int(minor))
        self._device = device

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Push the context of the device in the calling thread; all work on the GPU needs it.

        Yields:
            Nothing; the context is popped when the block ends.

        Raises:
            BackendError: If the driver refuses the context.
        """
        self.call("the GPU's context cannot be entered", self._driver.cuCtxPushCurrent, self._context.handle)
        try:
            yield
        finally:
            self.call("the GPU's context cannot be left", self._driver.cuCtxPopCurrent)

    def stream(self) -> Stream:
        """Create a stream that does not wait for the default stream, on the thread that created this object.

        Returns:
            The stream.

        Raises:
            BackendError: If cuda.core fails.
        """
        with vendor_errors("a stream cannot be made", HINT_CALL):
            return Stream(self, self._device.create_stream(), self._device.create_event())

    def device_memory(self, size: int, purpose: str) -> Memory:
        """Allocate memory on the GPU.

        Args:
            size: Size in bytes.
            purpose: Content of the memory, for messages.

        Returns:
            The memory.

        Raises:
            BackendError: If the memory cannot be allocated; the message has purpose and size.
        """
        driver = self._driver
        return self._memory(size, purpose, driver.cuMemAlloc, driver.cuMemFree, self.out_of_memory)

    def pinned_memory(self, size: int, purpose: str) -> PinnedMemory:
        """Allocate pinned host memory, which the GPU reads and writes by itself.

        Args:
            size: Size in bytes.
            purpose: Content of the memory, for messages.

        Returns:
            The memory.

        Raises:
            BackendError: If the memory cannot be allocated; the message has purpose and size.
        """
        driver = self._driver
        return PinnedMemory(
            self._memory(size, purpose, driver.cuMemAllocHost, driver.cuMemFreeHost, _out_of_pinned_memory)
        )

    def free_memory(self) -> tuple[int, int]:
        """Return the sizes of the GPU's free memory and of its whole memory, in bytes.

        Returns:
            Free bytes and all bytes.

        Raises:
            BackendError: If the driver does not answer.
        """
        free, total = self.call("the size of the GPU's memory cannot be read", self._driver.cuMemGetInfo)
        return int(free), int(total)

    def out_of_memory(self, purpose: str, size: int) -> BackendError:
        """Create the error for an allocation that failed for lack of GPU memory.

        Args:
            purpose: Content of the memory.
            size: Size in bytes.

        Returns:
            The error, to be raised by the caller.
        """
        free, total = self.free_memory()
        return BackendError(
            f"out of GPU memory: {purpose} needs {size / _MIB:.1f} MiB, and {free / _MIB:.0f} of "
            f"{total / _MIB:.0f} MiB on {self.name} are free",
            hint=_HINT_MEMORY,
        )

    def call(self, what: str, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
        """Call a function of the driver.

        Args:
            what: Failure of the call, for the message.
            function: Function of cuda.bindings.driver. It returns a status and its results.
            *arguments: Arguments of the function.

        Returns:
            None, the result, or a tuple of the results if there are several.

        Raises:
            BackendError: If the status is not CUDA_SUCCESS.
        """
        status, *results = function(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"{what} ({status.name})", hint=HINT_CALL)
        return results[0] if len(results) == 1 else tuple(results) or None

    def _memory(
        self,
        size: int,
        purpose: str,
        allocate: Callable[[int], tuple[Any, ...]],
        free: Callable[[int], tuple[Any, ...]],
        out_of_memory: Callable[[str, int], BackendError],
    ) -> Memory:
        """Allocate memory with a function of the driver; `free` gives it back."""
        status, pointer = allocate(size)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise out_of_memory(purpose, size)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(
                f"cannot allocate {size / _MIB:.1f} MiB for {purpose} ({status.name})", hint=HINT_CALL
            )
        return Memory(int(pointer), size, lambda: self.call(f"{purpose} cannot be freed", free, int(pointer)))

    def _check_driver(self, bindings_version: str) -> str:
        """Return the CUDA version of the driver; BackendError without a driver, with an old one or without a GPU."""
        try:
            version = self.call("the NVIDIA driver does not answer", self._driver.cuDriverGetVersion)
        except RuntimeError as error:
            raise BackendError(
                "no NVIDIA driver",
                hint="libcuda cannot be loaded; install the driver of your GPU, in a container start it with "
                "--gpus all, or use the backend onnxruntime",
            ) from error
        text = f"{version // 1000}.{version % 1000 // 10}"
        if version // 1000 < int(bindings_version.partition(".")[0]):
            major = version // 1000
            raise BackendError(
                f"the NVIDIA driver is too old (it supports CUDA {text}) for cuda-bindings {bindings_version}",
                hint=f"update the driver, or pip install 'cuda-bindings=={major}.*'",
            )
        (status,) = self._driver.cuInit(0)
        if status == self._driver.CUresult.CUDA_ERROR_NO_DEVICE:
            raise BackendError(
                "the NVIDIA driver finds no GPU",
                hint="compare the list of nvidia-smi with CUDA_VISIBLE_DEVICES",
            )
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise BackendError(f"the NVIDIA driver does not start ({status.name})", hint="run nvidia-smi")
        return text


class Memory:
    """Allocated memory.

    Args:
        pointer: Address of its first byte.
        size: Size in bytes.
        free: Function that gives the memory back to the driver.

    Attributes:
        pointer: Address of its first byte.
        size: Size in bytes.
    """

    def __init__(self, pointer: int, size: int, free: Callable[[], object]) -> None:
        self.pointer, self.size = pointer, size
        self._free: Callable[[], object] | None = free

    def close(self) -> None:
        """Free the memory; may be called twice.

        Call it inside `Gpu.entered`, when no work on the GPU uses the memory any more.

        Raises:
            BackendError: If the driver fails.
        """
        free, self._free = self._free, None
        if free is not None:
            free()


class PinnedMemory(Memory):
    """Pinned host memory.

    Args:
        memory: Memory of `cuMemAllocHost`, which this object takes over.

    Attributes:
        array: Bytes of the memory, (size,) uint8. Do not use it after `close`.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory.pointer, memory.size, memory.close)
        self.array: UInt8Array = np.ctypeslib.as_array(
            (ctypes.c_uint8 * memory.size).from_address(memory.pointer)
        )


def _out_of_pinned_memory(purpose: str, size: int) -> BackendError:
    """Create the error for an allocation that failed for lack of host memory."""
    return BackendError(
        f"out of pinned memory: {purpose} needs {size / _MIB:.1f} MiB of host memory",
        hint="build the engine with a smaller batch in its target, or close other programs",
    )


def _library() -> tuple[Any, Any, str]:
    """Import cuda.core and the driver bindings; return both and the version of the bindings."""
    try:
        import cuda.core
        from cuda.bindings import __version__ as bindings_version
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendError(
            f"cannot import cuda.core ({' '.join(str(error).split())})", hint="pip install 'edgead[tensorrt]'"
        ) from error
    return cuda.core, driver, str(bindings_version)
