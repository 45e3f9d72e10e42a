"""The environment of a session: processor, libraries, threads and device, on which its answers may depend.

A bundle records the environment that it was verified on. If another machine gives other answers, the error names both
environments. `edgead doctor` shows the environment of this machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgead.errors import BackendError

CPU_INFO = Path("/proc/cpuinfo")

# Extensions by which ONNX Runtime, OpenCV and NumPy choose their kernels. x86 lists them as flags, Arm as Features.
_INSTRUCTION_SETS = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *(
        "avx_vnni",
        "amx_int8",
        "amx_bf16",
        "asimd",
        "fphp",
        "asimdhp",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    ),
)
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Environment:
    """The properties of a machine that the answers of a session may depend on.

    Attributes:
        architecture: Name of the instruction set architecture, such as x86_64 or aarch64.
        device: Name of the CPU, and of the GPU or NPU that computes the answers instead.
        instruction_sets: Extensions by which the libraries choose their kernels, such as avx2 or avx512_vnni.
        threads: CPU threads of one inference.
        libraries: Version of each library that is used, by name.
    """

    architecture: str
    device: str
    instruction_sets: tuple[str, ...]
    threads: int
    libraries: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the environment as JSON values."""
        return {
            **asdict(self),
            "instruction_sets": list(self.instruction_sets),
            "libraries": dict(self.libraries),
        }

    def __str__(self) -> str:
        libraries = ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        sets = " ".join(self.instruction_sets) or "no extensions"
        return f"{self.device} ({self.architecture}: {sets}), {self.threads} threads, {libraries}"


def this_environment(threads: int | None = None, backend: str = "onnxruntime") -> Environment:
    """Describe this machine.

    Args:
        threads: CPU threads of one inference; None for one per core that this process may use.
        backend: Name of the backend, one of `edgead.types.BACKENDS`.

    Returns:
        The environment, without the libraries and the devices that are missing.
    """
    text = _cpu_info()
    libraries, device = {"numpy": np.__version__}, _device(text)
    # No session opens here without them. `edgead doctor` reports that by checks of its own.
    with suppress(ImportError):
        import cv2

        libraries = {"opencv": cv2.__version__, **libraries}
    with suppress(BackendError):
        libraries = {backend: _version(backend), **libraries}
        if (accelerator := _accelerator(backend)) is not None:
            device = f"{accelerator} on {device}"
    return Environment(
        architecture=platform.machine(),
        device=device,
        instruction_sets=_instruction_sets(text),
        threads=threads or len(os.sched_getaffinity(0)),
        libraries=libraries,
    )


def described(record: Mapping[str, Any]) -> str:
    """Describe an environment that a bundle recorded, for a message.

    A record is untrusted: unprintable characters are replaced and the length is bounded.

    Args:
        record: JSON values, as `Environment.to_json` returns them.

    Returns:
        One line of at most 200 characters; "an unknown machine" if the record has another form.
    """
    names = {field.name for field in fields(Environment)}
    sets, libraries = record.get("instruction_sets"), record.get("libraries")
    if record.keys() != names or not isinstance(sets, Sequence) or not isinstance(libraries, Mapping):
        return "an unknown machine"
    known = {**record, "instruction_sets": tuple(map(str, sets)), "libraries": libraries}
    text = str(Environment(**known))
    return "".join(character if character.isprintable() else "?" for character in text)[:_LONGEST]


def _version(backend: str) -> str:
    """Return the version of the library of a backend, by importing it; BackendError if that fails."""
    if backend == "onnxruntime":
        from edgead.runtime.onnxruntime import library_version

        return library_version()
    if backend.startswith("openvino"):
        from edgead.runtime import openvino

        return openvino.library_version()
    from edgead.runtime.tensorrt.library import load_library

    return load_library("tensorrt-rtx" if backend == "tensorrt-rtx" else "tensorrt").version_text


def _accelerator(backend: str) -> str | None:
    """Return the name of the GPU or NPU of a backend, None for a CPU; BackendError if it is missing."""
    if backend in ("onnxruntime", "openvino"):
        return None
    if backend in ("openvino-gpu", "openvino-npu"):
        from edgead.runtime.openvino import device_name

        return device_name(backend)
    from edgead.runtime.tensorrt.cuda import Gpu

    return Gpu().name


def _cpu_info() -> str:
    """Return the kernel's description of the CPUs; an empty string if there is none."""
    try:
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _device(cpu_info: str) -> str:
    """Return the model name of the CPU; on Arm the kernel gives numbers of implementer and part instead."""
    for key in ("model name", "Model", "CPU part"):
        if value := _value(cpu_info, key):
            return value
    return platform.processor() or "unknown CPU"


def _instruction_sets(cpu_info: str) -> tuple[str, ...]:
    """Return those of `_INSTRUCTION_SETS` that the kernel lists."""
    flags = set((_value(cpu_info, "flags") or _value(cpu_info, "Features")).split())
    return tuple(name for name in _INSTRUCTION_SETS if name in flags)


def _value(cpu_info: str, key: str) -> str:
    """Return the value of the first line with a key; an empty string if there is none."""
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
