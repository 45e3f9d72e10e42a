"""Launches from Python: planned, packed and passed to the driver.

There is no GPU. The driver's launch function is replaced by one that runs the kernels on the host, so the kernels get
the same arguments as on a device.
"""

from __future__ import annotations

import ctypes
import shutil
from types import SimpleNamespace

import pytest

from edgead.errors import BackendError
from edgead.plugin.kernels import KERNELS, AnomalyMapKernels
from edgead.plugin.launches import Buffers, workspace_bytes
from edgead.types import HeadSpec
from tests.helpers.host_kernels import compile_host, guarded, guarded_copy
from tests.helpers.kernel_cases import CASES, check, laid_out

core = pytest.importorskip("cuda.core", reason="no cuda-core: pip install 'edgead[tensorrt]'")
driver = pytest.importorskip("cuda.bindings.driver")
STREAM = 0x5EED


class Device:
    arch = "87"
    properties = SimpleNamespace(multiprocessor_count=16)


class Code:
    @staticmethod
    def from_cubin(cubin):
        # The driver finds a kernel by its name, so the machine code must contain all names.
        assert all(name.encode() in cubin for name in KERNELS)
        return Code()

    def get_kernel(self, name):
        return SimpleNamespace(handle=KERNELS.index(name) + 1)


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(core, "Device", Device)
    monkeypatch.setattr(core, "ObjectCode", Code)
    return monkeypatch


@pytest.fixture
def run(device, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++: apt-get install g++")
    library = ctypes.CDLL(str(compile_host(tmp_path)))
    library.launch_kernel.argtypes = [
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.c_uint32,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]

    def launch(
        function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters, extra
    ):
        assert (grid_y, grid_z, block_y, block_z, stream, extra) == (1, 1, 1, 1, STREAM, 0)
        arguments = ctypes.c_void_p.from_address(parameters).value
        status = library.launch_kernel(int(function) - 1, grid_x, block_x, shared_bytes, arguments)
        return (driver.CUresult(status),)

    device.setattr(driver, "cuLaunchKernel", launch)
    kernels = AnomalyMapKernels()

    def run_planned(layout, teacher, student, height, width, fusion, sigma, align_corners, weights):
        spec = HeadSpec(height, width, fusion, sigma, align_corners, weights)
        shapes = [feature.shape for feature in teacher]
        features = [[guarded_copy(laid_out(f, layout), 0) for f in side] for side in (teacher, student)]
        outputs = [guarded(size, "f4") for size in (len(teacher[0]) * height * width, len(teacher[0]))]
        workspace = guarded(workspace_bytes(shapes) // 4, "f4")
        buffers = Buffers(
            *([feature.ctypes.data for feature in side] for side in features),
            *(array.ctypes.data for array in (workspace, *outputs)),
        )
        kernels.enqueue(kernels.plan(layout, shapes, spec, buffers), STREAM)
        maps, scores = outputs
        return maps.reshape(-1, 1, height, width), scores

    return run_planned


def test_launches_from_python_agree_with_the_oracle(run):
    for case in CASES[::5]:
        for layout in case.layouts:
            check(case, layout, run)


def test_a_launch_that_the_driver_refuses_is_named(device):
    device.setattr(driver, "cuLaunchKernel", lambda *_: (driver.CUresult.CUDA_ERROR_INVALID_VALUE,))
    kernels = AnomalyMapKernels()
    planned = kernels.plan("half", [(1, 8, 4, 4)], HeadSpec(8, 8), Buffers([16], [16], 16, 16, 16))
    with pytest.raises(BackendError) as refusal:
        kernels.enqueue(planned, STREAM)
    assert "edgead_cosine_half" in refusal.value.what
    assert "CUDA_ERROR_INVALID_VALUE" in refusal.value.what
    assert "edgead doctor" in (refusal.value.hint or "")


def test_a_machine_without_a_device_is_reported(monkeypatch):
    def no_device():
        raise RuntimeError("no\ndriver")

    monkeypatch.setattr(core, "Device", no_device)
    with pytest.raises(BackendError) as refusal:
        AnomalyMapKernels()
    assert "no driver" in refusal.value.what
    assert "edgead doctor" in (refusal.value.hint or "")


def test_kernels_that_the_driver_does_not_load_are_reported(device):
    def no_kernel(self, name):
        raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU.")

    device.setattr(Code, "get_kernel", no_kernel)
    with pytest.raises(BackendError) as refusal:
        AnomalyMapKernels()
    assert "sm_87" in refusal.value.what
    assert "CUDA_ERROR_NO_BINARY_FOR_GPU" in refusal.value.what
