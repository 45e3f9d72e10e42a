"""The CUDA kernels compiled on the machine that runs them, by NVRTC through cuda-core: no toolkit, no GPU needed.

TensorRT for RTX has no plugins, so its sessions launch the kernels themselves, and tests do too. The plugin for
TensorRT is compiled by nvcc from the same sources.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import BackendError, needs_extra

SOURCES = Path(__file__).parent
"""Where the C++ and CUDA sources lie."""


@dataclass(frozen=True, slots=True)
class KernelUse:
    """What one kernel takes of a multiprocessor, by the compiler's report; registers and bytes a thread."""

    registers: int
    stack_bytes: int
    spill_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """Machine code of all kernels for one architecture, and what the compiler says of it."""

    architecture: str
    cubin: bytes
    report: str

    def use(self) -> dict[str, KernelUse]:
        """Read the report: kernel's name to what it takes."""
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
    """SHA-256, in hex, of all that the kernels are compiled from: another one, other kernels."""
    digest = hashlib.sha256()
    for file in sorted([*SOURCES.glob("*.cuh"), SOURCES / "anomaly_map.h"]):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def compile_kernels(architecture: str) -> CompiledKernels:
    """Compile the kernels for an architecture, `sm_87` or the like; takes a second or two.

    Raises MissingExtraError where cuda-core is not installed, and BackendError where its compiler cannot be loaded
    or does not know the architecture.
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
            f"NVRTC, which compiles the kernels, is missing ({reason}): pip install 'cuda-bindings[all]' of your "
            "driver's CUDA, or install the CUDA toolkit"
        ) from error
    # NVRTC's own errors have no public class.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            f"NVRTC cannot compile the kernels for {architecture}: {reason}: install a CUDA release that knows it"
        ) from error
    return CompiledKernels(architecture, bytes(code), report.getvalue())
