"""Compile the CUDA kernels on the machine that runs them, with NVRTC through cuda-core. No toolkit or GPU is needed.

TensorRT for RTX has no plugins, so its sessions launch the kernels themselves, as do tests. The plugin for TensorRT is
compiled by nvcc from the same sources.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import BackendError, needs_extra

SOURCES = Path(__file__).parent
"""Directory of the C++ and CUDA sources."""


@dataclass(frozen=True, slots=True)
class KernelUse:
    """Resources of one kernel, from the compiler's report.

    Attributes:
        registers: Registers for each thread.
        stack_bytes: Stack for each thread, in bytes.
        spill_bytes: Spill stores and loads of each thread, in bytes.
    """

    registers: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """Machine code of all kernels for one architecture.

    Attributes:
        architecture: Architecture, such as `sm_87`.
        cubin: Machine code.
        report: Report of the compiler.
    """

    architecture: str
    cubin: bytes
    report: str

    def use(self) -> dict[str, KernelUse]:
        """Read the resources of each kernel from the report, by name of the kernel."""
        found = re.findall(
            r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
            r"(\d+) bytes spill loads.*?Used (\d+) registers",
            self.report,
            re.DOTALL,
        )
        return {
            name: KernelUse(int(registers), int(stack), int(stores) + int(loads))
            for name, stack, stores, loads, registers in found
        }


def source_digest() -> str:
    """Hash all sources of the kernels; returns the SHA-256 in hex."""
    digest = hashlib.sha256()
    for file in sorted([*SOURCES.glob("*.cuh"), SOURCES / "anomaly_map.h"]):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def compile_kernels(architecture: str) -> CompiledKernels:
    """Compile the kernels for an architecture, which takes one or two seconds.

    Args:
        architecture: Architecture, such as `sm_87`.

    Returns:
        The machine code and the compiler's report.

    Raises:
        MissingExtraError: cuda-core is not installed.
        BackendError: NVRTC cannot be loaded, or cannot compile for the architecture.
    """
    with needs_extra("tensorrt", "compiling CUDA kernels"):
        from cuda.core import Program, ProgramOptions
        from cuda.pathfinder import DynamicLibNotFoundError
    options = ProgramOptions(
        name="anomaly_map.cu",
        arch=architecture,
        std="c++17",
        include_path=str(SOURCES),
        ptxas_options=["-v"],
    )
    report = io.StringIO()
    try:
        program = Program('#include "anomaly_map.cuh"\n', "c++", options)
        code = program.compile("cubin", logs=report).code
    except DynamicLibNotFoundError as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            f"NVRTC, which compiles the kernels, is missing ({reason})",
            hint="pip install 'cuda-bindings[all]' of your driver's CUDA, or install the CUDA toolkit",
        ) from error
    # NVRTC's own errors have no public class.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            f"NVRTC cannot compile the kernels for {architecture} ({reason})",
            hint=f"install a CUDA release that supports {architecture}",
        ) from error
    return CompiledKernels(architecture, bytes(code), report.getvalue())
