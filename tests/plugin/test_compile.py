"""NVRTC and nvcc compile the kernels for every architecture that edgead supports, and no kernel spills."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edgead.errors import BackendError
from edgead.plugin.compile import SOURCES, CompiledKernels, KernelUse, compile_kernels
from edgead.plugin.kernels import KERNELS

# Turing, A100, Ampere, Orin, Ada, Hopper, Blackwell of the data centre and of the desk.
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_120")


def test_the_report_is_read():
    report = (
        "ptxas info    : Compiling entry function 'one' for 'sm_90'\n"
        "ptxas info    : Function properties for one\n"
        "ptxas         .     16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n"
        "ptxas info    : Used 60 registers, used 1 barriers\n"
    )
    assert CompiledKernels("sm_90", b"", report).use() == {"one": KernelUse(60, 16, 12)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_without_spills(architecture):
    pytest.importorskip("cuda.core", reason="no cuda-core: pip install 'edgead[tensorrt]'")
    compiled = compile_kernels(architecture)
    assert compiled.cubin.startswith(b"\x7fELF")
    assert "warning" not in compiled.report
    use = compiled.use()
    assert set(use) == set(KERNELS)
    for name, kernel in use.items():
        assert kernel.spill_bytes == kernel.stack_bytes == 0, f"{name} spills on {architecture}: {kernel}"
        # Three blocks of 256 threads fit a multiprocessor of 65536 registers, allocated in units of eight.
        assert kernel.registers <= 80, f"{name} on {architecture}"


def test_an_architecture_that_the_compiler_does_not_know_is_named():
    pytest.importorskip("cuda.core", reason="no cuda-core: pip install 'edgead[tensorrt]'")
    with pytest.raises(BackendError) as refusal:
        compile_kernels("sm_20")
    assert "sm_20" in refusal.value.what
    # NVRTC's own reason.
    assert "invalid value" in refusal.value.what


def test_a_missing_compiler_is_named_with_its_package(monkeypatch):
    core = pytest.importorskip("cuda.core", reason="no cuda-core: pip install 'edgead[tensorrt]'")
    from cuda.pathfinder import DynamicLibNotFoundError

    def missing(*_: object) -> None:
        # The error of cuda-core 1.2 if there is no NVRTC.
        raise DynamicLibNotFoundError('Failure finding "libnvrtc.so.13":\n  No such file: libnvrtc.so.13')

    monkeypatch.setattr(core, "Program", missing)
    with pytest.raises(BackendError) as caught:
        compile_kernels("sm_87")
    assert "No such file: libnvrtc.so.13" in caught.value.what
    assert "pip install 'cuda-bindings[all]'" in (caught.value.hint or "")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: install NVIDIA's CUDA toolkit")
def test_nvcc_compiles_the_launcher_too(tmp_path):
    command = [
        "nvcc",
        "-std=c++17",
        "-Xcompiler=-Wall,-Wextra,-Werror",
        "-Werror=all-warnings",
        "-arch=sm_87",
        "-c",
    ]
    target = tmp_path / "anomaly_map.o"
    result = subprocess.run(
        [*command, str(SOURCES / "anomaly_map.cu"), "-o", str(target)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    symbols = target.read_bytes()
    assert b"launch_anomaly_map" in symbols
    assert b"workspace_bytes" in symbols
