"""Streams, events and CUDA graphs of a GPU, with the functions that a session needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgead.errors import BackendError, vendor_errors

if TYPE_CHECKING:
    from edgead.runtime.tensorrt.cuda import Gpu

HINT_CALL = "start the program again; if the error stays, run 'edgead doctor' and nvidia-smi"
"""Hint of an error without a known cause."""


class Stream:
    """A queue of work on the GPU, used by one thread at a time.

    Args:
        gpu: GPU of the stream.
        stream: Stream of cuda.core.
        event: Event of cuda.core, for `wait_for`.

    Attributes:
        handle: Handle of the stream, for other libraries.
    """

    def __init__(self, gpu: Gpu, stream: Any, event: Any) -> None:
        self._gpu, self._stream, self._event = gpu, stream, event
        self._driver = gpu._driver
        self.handle = int(stream.handle)

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy between two addresses, each in pinned or in GPU memory.

        Args:
            target: Address to copy to.
            source: Address to copy from.
            size: Number of bytes.

        Raises:
            BackendError: If the driver refuses the copy.
        """
        what = f"copying {size} bytes to or from the GPU failed"
        self._gpu.call(what, self._driver.cuMemcpyAsync, target, source, size, self._stream.handle)

    def wait_for(self, handle: int) -> None:
        """Make later work in this stream wait for the work that is queued on another stream now.

        The GPU waits, the calling thread does not.

        Args:
            handle: Handle of a stream in the primary context of the device.

        Raises:
            BackendError: If the stream was destroyed or belongs to another context.
        """
        driver = self._driver
        (status,) = driver.cuEventRecord(self._event.handle, driver.CUstream(handle))
        if status != driver.CUresult.CUDA_SUCCESS:
            raise BackendError(
                f"cannot wait for stream {handle:#x} ({status.name}): it was destroyed, or its CUDA context is not the "
                "primary context of the device",
                hint="with PyCUDA import pycuda.autoprimaryctx, not pycuda.autoinit",
            )
        what = "waiting for another stream failed"
        self._gpu.call(what, driver.cuStreamWaitEvent, self._stream.handle, self._event.handle, 0)

    def capture(self, enqueue: Callable[[], bool]) -> Graph | None:
        """Record the work that a function queues in this stream as a graph, without running it.

        Other threads may use the GPU meanwhile. The stream is usable afterwards in every case.

        Args:
            enqueue: Function that queues the work and returns whether that succeeded.

        Returns:
            The graph; None if `enqueue` returns False or queues work that cannot be recorded.

        Raises:
            BackendError: If the driver refuses to begin a capture, or cannot free the recorded graph.
        """
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._gpu.call("a CUDA graph cannot be begun", driver.cuStreamBeginCapture, self._stream.handle, mode)
        recorded, executable = False, None
        try:
            recorded = enqueue()
        finally:
            # End the capture in every case, because a stream that captures accepts no other work.
            status, captured = driver.cuStreamEndCapture(self._stream.handle)
            if status == driver.CUresult.CUDA_SUCCESS:
                if recorded:
                    status, executable = driver.cuGraphInstantiate(captured, 0)
                self._gpu.call("a CUDA graph cannot be freed", driver.cuGraphDestroy, captured)
        if not recorded or status != driver.CUresult.CUDA_SUCCESS:
            return None
        return Graph(self._gpu, executable)

    def launch(self, graph: Graph) -> None:
        """Queue a graph.

        Args:
            graph: Graph that was captured on this GPU.

        Raises:
            BackendError: If the driver refuses the graph.
        """
        self._gpu.call(
            "a CUDA graph cannot be run", self._driver.cuGraphLaunch, graph.executable, self._stream.handle
        )

    def synchronise(self) -> None:
        """Wait until all queued work is done.

        Raises:
            BackendError: If the work failed on the GPU.
        """
        with vendor_errors("the work on the GPU failed", HINT_CALL):
            self._stream.sync()

    def close(self) -> None:
        """Destroy the stream and its event.

        Raises:
            BackendError: If cuda.core fails.
        """
        with vendor_errors("a stream cannot be freed", HINT_CALL):
            self._event.close()
            self._stream.close()


class Graph:
    """Recorded work, which can be run many times.

    Args:
        gpu: GPU of the graph.
        executable: Handle of the executable graph, from the driver.

    Attributes:
        executable: As given.
    """

    def __init__(self, gpu: Gpu, executable: Any) -> None:
        self._gpu, self.executable = gpu, executable

    def close(self) -> None:
        """Free the graph, when it does not run any more.

        Raises:
            BackendError: If the driver fails.
        """
        self._gpu.call("a CUDA graph cannot be freed", self._gpu._driver.cuGraphExecDestroy, self.executable)
