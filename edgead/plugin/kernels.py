"""The CUDA kernels on a device: compiled for it, loaded, and put on a stream.

For TensorRT for RTX, which has no plugins, and for tests. Putting them on a stream allocates nothing and waits for
nothing, so it may be captured into a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from edgead.errors import BackendError, needs_extra, vendor_errors
from edgead.plugin.compile import compile_kernels
from edgead.plugin.launches import THREADS, Buffers, FeatureShape, Format, Launch, launches
from edgead.types import HeadSpec

KERNELS = ("edgead_cosine_float", "edgead_cosine_half", "edgead_cosine_half8", "edgead_fuse_and_smooth")


class AnomalyMapKernels:
    """The operator on the device whose context is current on the calling thread.

    cubin_for: gives the machine code for an architecture such as sm_87. Raises MissingExtraError without cuda-core, and
    BackendError when there is no device or the kernels cannot be compiled for it.
    """

    def __init__(
        self,
        cubin_for: Callable[[str], bytes] = lambda architecture: compile_kernels(architecture).cubin,
    ) -> None:
        with needs_extra("tensorrt", "running CUDA kernels"):
            from cuda.bindings import driver
            from cuda.core import Device, ObjectCode
        self._driver = driver
        with vendor_errors("no CUDA device can be opened", "see edgead doctor"):
            device = Device()
            architecture, self._multiprocessors = (
                f"sm_{device.arch}",
                int(device.properties.multiprocessor_count),
            )
        cubin = cubin_for(architecture)
        with vendor_errors(f"the kernels for {architecture} cannot be loaded", "see edgead doctor"):
            # Held, for the functions live as long as it does.
            self._code = ObjectCode.from_cubin(cubin)
            self._functions = {
                name: driver.CUfunction(int(self._code.get_kernel(name).handle)) for name in KERNELS
            }

    def plan(
        self, layout: Format, shapes: Sequence[FeatureShape], spec: HeadSpec, buffers: Buffers
    ) -> tuple[Launch, Launch]:
        """Plan the operator for these buffers, once; arguments and errors are those of `edgead.plugin.launches`."""
        return launches(layout, shapes, spec, buffers, self._multiprocessors)

    def enqueue(self, planned: Sequence[Launch], stream: int) -> None:
        """Put planned launches on a stream, by its handle. Raises BackendError when the driver refuses one."""
        for launch in planned:
            # By the driver itself, because cuda-core's launch takes no structures by value.
            parameters = (ctypes.c_void_p * 1)(ctypes.addressof(launch.arguments))
            (status,) = self._driver.cuLaunchKernel(
                self._functions[launch.kernel],
                *(launch.blocks, 1, 1),
                *(THREADS, 1, 1),
                launch.shared_bytes,
                stream,
                ctypes.addressof(parameters),
                0,
            )
            if status != self._driver.CUresult.CUDA_SUCCESS:
                raise BackendError(f"CUDA does not launch {launch.kernel} ({status.name}): see edgead doctor")
