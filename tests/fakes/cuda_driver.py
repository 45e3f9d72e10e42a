"""A driver and a cuda.core with host memory as the GPU, so that the calls of edgead run on every machine.

Like the real ones they refuse work without a current context, unknown memory and streams, and more memory than there
is. A stream that captures only records. `journal` holds the order in which streams were used.
"""

from __future__ import annotations

import ctypes
import enum
import threading
from collections.abc import Callable
from types import SimpleNamespace

PRIMARY = 0xC0
STREAM = 0x5EED
EVENT = 0xE7


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class StandInDriver:
    """The functions of cuda.bindings.driver that edgead calls, on one GPU; `memory`: size of its memory in bytes."""

    CUresult = CUresult
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CUstream = int

    def __init__(self, memory: int = 2**30) -> None:
        self.version, self.starts = 13000, CUresult.CUDA_SUCCESS
        self.total, self.journal = memory, []
        self.external_streams = {1, 2, 0xF00}
        self.host_free = memory
        self._taken: dict[int, tuple[object, int, bool]] = {}
        self._threads = threading.local()
        self._captures: dict[int, list[Callable[[], None]] | None] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    @property
    def contexts(self) -> list[int]:
        """The calling thread's stack of contexts."""
        if not hasattr(self._threads, "stack"):
            self._threads.stack = []
        return self._threads.stack

    @property
    def left(self) -> tuple[int, int]:
        """Numbers of allocations and of graphs that are not freed."""
        return len(self._taken), len(self._graphs)

    @property
    def free(self) -> int:
        return self.total - sum(size for _, size, host in self._taken.values() if not host)

    def queue(self, stream: int, work: Callable[[], None]) -> bool:
        """Do some work now, or record it if the stream captures; return whether that is allowed."""
        capture = self._captures.get(stream)
        if stream in self._captures:
            if capture is None:
                return False
            capture.append(work)
        else:
            work()
        return True

    def invalidate(self, stream: int) -> None:
        """Invalidate the capture of a stream, as a call does that cannot be captured."""
        self._captures[stream] = None

    def capturing(self, stream: int) -> bool:
        return stream in self._captures

    def cuDriverGetVersion(self):  # noqa: N802
        return CUresult.CUDA_SUCCESS, self.version

    def cuInit(self, flags):  # noqa: N802
        return (self.starts,)

    def cuCtxGetCurrent(self):  # noqa: N802
        return CUresult.CUDA_SUCCESS, self.contexts[-1] if self.contexts else 0

    def cuCtxSetCurrent(self, context):  # noqa: N802
        if self.contexts:
            self.contexts.pop()
        if context:
            self.contexts.append(context)
        return (CUresult.CUDA_SUCCESS,)

    def cuCtxPushCurrent(self, context):  # noqa: N802
        self.contexts.append(context)
        return (CUresult.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self):  # noqa: N802
        return CUresult.CUDA_SUCCESS, self.contexts.pop()

    def cuMemGetInfo(self):  # noqa: N802
        return CUresult.CUDA_SUCCESS, self.free, self.total

    def cuMemAlloc(self, size):  # noqa: N802
        return self._take(size, self.free, host=False)

    def cuMemAllocHost(self, size):  # noqa: N802
        return self._take(size, self.host_free, host=True)

    def cuMemFree(self, pointer):  # noqa: N802
        del self._taken[pointer]
        return (CUresult.CUDA_SUCCESS,)

    cuMemFreeHost = cuMemFree  # noqa: N815

    def cuMemcpyAsync(self, target, source, size, stream):  # noqa: N802
        inside = any(
            start <= target and target + size <= start + taken for start, (_, taken, _) in self._taken.items()
        )
        if self.contexts[-1:] != [PRIMARY] or not inside:
            return (CUresult.CUDA_ERROR_INVALID_VALUE,)
        self.journal.append(("copy", size))
        self.queue(stream, lambda: ctypes.memmove(target, source, size) and None)
        return (CUresult.CUDA_SUCCESS,)

    def cuEventRecord(self, event, stream):  # noqa: N802
        if stream not in self.external_streams:
            return (CUresult.CUDA_ERROR_INVALID_HANDLE,)
        self.journal.append(("record", stream))
        return (CUresult.CUDA_SUCCESS,)

    def cuStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        self.journal.append(("wait", stream))
        return (CUresult.CUDA_SUCCESS,)

    def cuStreamBeginCapture(self, stream, mode):  # noqa: N802
        self._captures[stream] = []
        return (CUresult.CUDA_SUCCESS,)

    def cuStreamEndCapture(self, stream):  # noqa: N802
        captured = self._captures.pop(stream)
        if captured is None:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        return CUresult.CUDA_SUCCESS, self._graph(captured)

    def cuGraphInstantiate(self, graph, flags):  # noqa: N802
        return CUresult.CUDA_SUCCESS, self._graph(self._graphs[graph])

    def cuGraphLaunch(self, graph, stream):  # noqa: N802
        self.journal.append(("launch", stream))
        for work in self._graphs[graph]:
            work()
        return (CUresult.CUDA_SUCCESS,)

    def cuGraphDestroy(self, graph):  # noqa: N802
        del self._graphs[graph]
        return (CUresult.CUDA_SUCCESS,)

    cuGraphExecDestroy = cuGraphDestroy  # noqa: N815

    def _take(self, size: int, free: int, host: bool) -> tuple[CUresult, int | None]:
        if self.contexts[-1:] != [PRIMARY]:
            return CUresult.CUDA_ERROR_INVALID_CONTEXT, None
        if size < 1:
            return CUresult.CUDA_ERROR_INVALID_VALUE, None
        if size > free:
            return CUresult.CUDA_ERROR_OUT_OF_MEMORY, None
        block = (ctypes.c_uint8 * (size + 255))()
        pointer = -(-ctypes.addressof(block) // 256) * 256
        self._taken[pointer] = (block, size, host)
        return CUresult.CUDA_SUCCESS, pointer

    def _graph(self, works: list[Callable[[], None]]) -> int:
        number = max(self._graphs, default=0) + 1
        self._graphs[number] = works
        return number


def stand_in_core(driver: StandInDriver, compute_capability: tuple[int, int] = (8, 6)) -> SimpleNamespace:
    """A cuda.core over this driver."""

    class Device:
        name = "Stand-in"

        def __init__(self) -> None:
            self.compute_capability = compute_capability
            self.context = SimpleNamespace(handle=PRIMARY)

        def set_current(self) -> None:
            driver.cuCtxSetCurrent(PRIMARY)

        def create_stream(self) -> SimpleNamespace:
            assert driver.contexts[-1:] == [PRIMARY]
            return SimpleNamespace(
                handle=STREAM,
                sync=lambda: driver.journal.append(("sync", STREAM)),
                close=lambda: driver.journal.append(("close", STREAM)),
            )

        def create_event(self) -> SimpleNamespace:
            return SimpleNamespace(handle=EVENT, close=lambda: None)

    return SimpleNamespace(Device=Device)
