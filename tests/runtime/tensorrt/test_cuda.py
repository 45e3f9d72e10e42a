from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.runtime.tensorrt import cuda
from edgead.runtime.tensorrt.cuda import Gpu
from tests.fakes.cuda_driver import CUresult, StandInDriver, stand_in_core


@pytest.fixture
def driver(monkeypatch) -> StandInDriver:
    driver = StandInDriver()
    monkeypatch.setattr(cuda, "_library", lambda: (stand_in_core(driver), driver, "13.5.0"))
    return driver


def test_without_a_driver_the_real_library_gives_a_one_line_error():
    if importlib.util.find_spec("cuda.core") is None:
        pytest.skip("cuda-core is not installed: pip install cuda-core")
    if list(Path("/proc/driver").glob("nvidia")):
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(BackendError, match="libcuda") as caught:
        Gpu()
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_without_cuda_core_the_error_has_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(BackendError, match=r"cuda\.core") as caught:
        Gpu()
    assert "pip install 'edgead[tensorrt]'" in caught.value.hint


def test_a_gpu_has_its_properties_and_leaves_the_thread_as_it_was(driver):
    gpu = Gpu()
    assert (gpu.name, gpu.compute_capability, gpu.cuda_version) == ("Stand-in", (8, 6), "13.0")
    assert driver.contexts == []


@pytest.mark.parametrize(("version", "text"), [(12020, "12.2"), (11040, "11.4")])
def test_an_old_driver_is_named_with_the_bindings_that_serve_it(driver, version, text):
    driver.version = version
    with pytest.raises(BackendError) as caught:
        Gpu()
    assert text in caught.value.what
    assert "13.5.0" in caught.value.what
    assert f"pip install 'cuda-bindings=={text[:2]}.*'" in caught.value.hint


def test_a_newer_driver_than_the_bindings_is_fine(driver):
    driver.version = 14010
    assert Gpu().cuda_version == "14.1"


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (CUresult.CUDA_ERROR_NO_DEVICE, "CUDA_VISIBLE_DEVICES"),
        (CUresult.CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"),
    ],
)
def test_a_driver_without_a_gpu_is_an_error_with_the_reason(driver, status, value):
    driver.starts = status
    with pytest.raises(BackendError, match=value) as caught:
        Gpu()
    assert "nvidia-smi" in caught.value.hint


def test_memory_is_given_back_once(driver):
    gpu = Gpu()
    with gpu.entered():
        memory, pinned = gpu.device_memory(1000, "a test"), gpu.pinned_memory(10, "a test")
        pinned.array[:] = range(10)
        assert gpu.free_memory() == (2**30 - 1000, 2**30)
        gpu.stream().copy(memory.pointer, pinned.pointer, 10)
        pinned.array[:] = 0
        gpu.stream().copy(pinned.pointer, memory.pointer, 10)
        assert list(pinned.array) == list(range(10))
        for taken in (memory, pinned, memory, pinned):
            taken.close()
    assert driver.left == (0, 0)


def test_the_error_of_a_failing_call_has_the_status_of_cuda(driver):
    gpu = Gpu()
    with gpu.entered(), pytest.raises(BackendError, match=r"\b5\b.*CUDA_ERROR_INVALID_VALUE"):
        gpu.stream().copy(1, 2, 5)
    with gpu.entered(), pytest.raises(BackendError, match=r"0\.0 MiB.*nothing.*CUDA_ERROR_INVALID_VALUE"):
        gpu.device_memory(0, "nothing")


def test_an_exception_of_cuda_core_is_one_line(driver, monkeypatch):
    core = stand_in_core(driver)

    def fail(self):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(core.Device, "set_current", fail)
    monkeypatch.setattr(cuda, "_library", lambda: (core, driver, "13.5.0"))
    with pytest.raises(BackendError, match="two lines"):
        Gpu()


def test_a_graph_runs_its_recorded_work_only_when_launched(driver):
    gpu, done = Gpu(), []
    with gpu.entered():
        stream = gpu.stream()
        graph = stream.capture(lambda: driver.queue(stream.handle, lambda: done.append(1)))
        assert done == []
        stream.launch(graph)
        stream.launch(graph)
        assert done == [1, 1]
        graph.close()
    assert driver.left == (0, 0)


def test_a_refused_capture_leaves_the_stream_usable_and_nothing_behind(driver):
    gpu = Gpu()
    with gpu.entered():
        stream = gpu.stream()
        assert stream.capture(lambda: False) is None
        assert stream.capture(lambda: driver.invalidate(stream.handle) or True) is None
        with pytest.raises(ValueError, match="in the middle"):
            stream.capture(lambda: (_ for _ in ()).throw(ValueError("in the middle")))
        assert not driver.capturing(stream.handle)
    assert driver.left == (0, 0)
