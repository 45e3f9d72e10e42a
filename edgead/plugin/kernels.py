"""The CUDA kernels on a device: compiled for it, loaded, and put on a stream.

For TensorRT for RTX, which has no plugins, and for tests. Nothing here allocates or waits, so the launches may be
captured into a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgead.errors import BackendError, needs_extra
from edgead.plugin.compile import compile_kernels
from edgead.plugin.launches import THREADS, Buffers, FeatureShape, Format, Launch, launches
from edgead.types import HeadSpec

if TYPE_CHECKING:
    from cuda.core import Device, Stream

KERNELS = ("edgead_cosine_float", "edgead_cosine_half", "edgead_cosine_half8", "edgead_fuse_and_smooth")


class AnomalyMapKernels:
    """The operator on one CUDA device.

    device: one that has been made current by `set_current`. Raises BackendError when the kernels cannot be compiled
    for it, and MissingExtraError without cuda-core.
    """

    def __init__(self, device: Device) -> None:
        with needs_extra("cuda", "running CUDA kernels"):
            from cuda.core import ObjectCode
        compiled = compile_kernels(f"sm_{device.arch}")
        code = ObjectCode.from_cubin(compiled.cubin)
        self._kernels = {name: code.get_kernel(name) for name in KERNELS}
        self._multiprocessors: int = device.properties.multiprocessor_count

    def plan(
        self, layout: Format, shapes: Sequence[FeatureShape], spec: HeadSpec, buffers: Buffers
    ) -> tuple[Launch, Launch]:
        """Plan the operator for these buffers once; arguments and errors are those of `edgead.plugin.launches`."""
        return launches(layout, shapes, spec, buffers, self._multiprocessors)

    def enqueue(self, planned: Sequence[Launch], stream: Stream) -> None:
        """Put planned launches on a stream of the device. Raises BackendError when the driver refuses one."""
        # cuda-core's own launch takes no structures by value.
        from cuda.bindings import driver

        for launch in planned:
            parameters = (ctypes.c_void_p * 1)(ctypes.addressof(launch.arguments))
            function = driver.CUfunction(int(self._kernels[launch.kernel].handle))
            (status,) = driver.cuLaunchKernel(
                function,
                *(launch.blocks, 1, 1),
                *(THREADS, 1, 1),
                launch.shared_bytes,
                stream.handle,
                ctypes.addressof(parameters),
                0,
            )
            if status != driver.CUresult.CUDA_SUCCESS:
                raise BackendError(f"CUDA does not launch {launch.kernel}: {status.name}: see edgead doctor")
