"""The CUDA kernels on a device: compile, load and enqueue them.

TensorRT for RTX, which has no plugins, and tests use this module. Enqueueing allocates nothing and waits for nothing,
so it may be captured into a CUDA graph.
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
    """The operator on the device of the current CUDA context of the calling thread.

    Args:
        cubin_for: Function that returns the machine code for an architecture, such as `sm_87`.

    Raises:
        MissingExtraError: cuda-core is not installed.
        BackendError: There is no device, or the kernels cannot be compiled or loaded for it.
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
            # The functions are valid only as long as this object exists.
            self._code = ObjectCode.from_cubin(cubin)
            self._functions = {
                name: driver.CUfunction(int(self._code.get_kernel(name).handle)) for name in KERNELS
            }

    def plan(
        self, layout: Format, shapes: Sequence[FeatureShape], spec: HeadSpec, buffers: Buffers
    ) -> tuple[Launch, Launch]:
        """Plan the launches of the operator for some buffers; see `edgead.plugin.launches.launches`."""
        return launches(layout, shapes, spec, buffers, self._multiprocessors)

    def enqueue(self, planned: Sequence[Launch], stream: int) -> None:
        """Enqueue planned launches.

        Args:
            planned: Launches from `plan`.
            stream: Handle of the CUDA stream.

        Raises:
            BackendError: The driver refuses a launch.
        """
        for launch in planned:
            # The driver's own function, because the launch function of cuda-core takes no structures by value.
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
                raise BackendError(
                    f"CUDA does not launch {launch.kernel} ({status.name})", hint="see edgead doctor"
                )
