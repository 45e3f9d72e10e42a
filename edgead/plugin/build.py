"""Compile the TensorRT plugin into one library, with the headers, the library and the compiler that are here.

A plugin speaks to one major version of TensorRT, and its kernels to the GPUs that its compiler knows, so there is
no library to ship for all: it is compiled once on the machine, or in the container, that builds the engines. The
kernels are compiled for every GPU that the compiler knows, from the first whose kernels take constant arguments
as ours do, so that a library may be copied to another machine with the same TensorRT.

The library is linked with libnvinfer. It registers itself when it is loaded, and the loader sets up what it needs
first only where it knows of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import BackendError
from edgead.files.atomic import check_directory, replace_file
from edgead.plugin.loader import LIBRARY_NAME

_SOURCES = ("anomaly_map.cu", "tensorrt_plugin.cpp")
_OLDEST_TENSORRT = (8, 6)
_OLDEST_COMPUTE_CAPABILITY = 70  # of __grid_constant__, which the kernels' arguments are

# JetPack, NVIDIA's Debian packages and its containers; then where its archives are unpacked by habit.
_INCLUDES = (
    "/usr/include/aarch64-linux-gnu",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include",
    "/usr/local/tensorrt/include",
    "/usr/local/TensorRT*/include",
    "/opt/tensorrt/include",
    "/opt/TensorRT*/include",
)
_COMPILERS = ("/usr/local/cuda/bin/nvcc", "/usr/local/cuda-*/bin/nvcc")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What the plugin is compiled with.

    include: directory of NvInfer.h. library: libnvinfer.so.MAJOR. version: of TensorRT, from its headers, as
    (major, minor). nvcc: CUDA's compiler.
    """

    include: Path
    library: Path
    version: tuple[int, int]
    nvcc: Path


@dataclass(frozen=True, slots=True)
class BuiltPlugin:
    """A compiled plugin: where it is, its SHA-256 in hex, and (major, minor) of the TensorRT it is for."""

    path: Path
    sha256: str
    tensorrt: tuple[int, int]


def build_plugin(out: Path, include: Path | None = None) -> BuiltPlugin:
    """Compile the plugin into the directory `out`, as a whole or not at all.

    include: directory of TensorRT's headers, where they are not where packages put them. Raises BackendError
    for a part that is missing, with where it comes from, and for what the compiler refuses.
    """
    check_directory(out)
    toolchain = find_toolchain(include)
    target = out / LIBRARY_NAME
    with replace_file(target) as partial:
        _run([os.fspath(toolchain.nvcc), *compile_options(toolchain), "-o", os.fspath(partial)])
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    return BuiltPlugin(target, digest, toolchain.version)


def find_toolchain(include: Path | None = None) -> Toolchain:
    """Find headers, libnvinfer and nvcc. Raises BackendError that says what is missing and how to get it."""
    headers = find_include(include)
    version = tensorrt_version(headers)
    if version < _OLDEST_TENSORRT:
        raise BackendError(
            f"the headers in {headers} are of version {version[0]}.{version[1]}, and the plugin needs those of "
            "TensorRT 8.6 or newer (TensorRT-RTX, which counts from 1, has no plugins): "
            "give others with --tensorrt-include DIR"
        )
    return Toolchain(headers, _find_library(headers, version[0]), version, _find_nvcc())


def find_include(include: Path | None = None) -> Path:
    """The directory of NvInfer.h: the one given, or where packages put it. Raises BackendError without one."""
    places = [include] if include else list(_existing(*_INCLUDES))
    for place in places:
        if (place / "NvInfer.h").is_file() and (place / "NvInferVersion.h").is_file():
            return place
    where = f"in {include}" if include else "on this machine"
    raise BackendError(
        f"the plugin needs TensorRT's headers, and there is no NvInfer.h {where}: "
        "sudo apt-get install libnvinfer-headers-dev (from JetPack or NVIDIA's repository), "
        "or --tensorrt-include DIR with the include directory of github.com/NVIDIA/TensorRT"
    )


def tensorrt_version(include: Path) -> tuple[int, int]:
    """(major, minor) of the TensorRT whose headers these are. Raises BackendError where they do not say."""
    text = (include / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    # A number, or since 10.10 or so the name of another macro that is one.
    macros: dict[str, str] = dict(re.findall(r"^#define\s+(\w+)\s+(\w+)", text, flags=re.MULTILINE))
    named = (macros.get(f"NV_TENSORRT_{part}", "") for part in ("MAJOR", "MINOR"))
    major, minor = (macros.get(name, name) for name in named)
    if not (major.isdecimal() and minor.isdecimal()):
        raise BackendError(
            f"{include / 'NvInferVersion.h'} names no version of TensorRT: give another directory"
        )
    return int(major), int(minor)


def compile_options(toolchain: Toolchain) -> list[str]:
    """The arguments of nvcc except the output."""
    sources = Path(__file__).parent
    return [
        "-std=c++17",
        "-O3",
        "-shared",
        # Two plugins in one process share no names, and a name that nothing defines is an error now, not later.
        "-Xcompiler=-fPIC,-fvisibility=hidden",
        "-Xlinker=-z,defs",
        *_device_code(toolchain.nvcc),
        "-isystem",
        os.fspath(toolchain.include),
        *(os.fspath(sources / name) for name in _SOURCES),
        f"-L{toolchain.library.parent}",
        f"-l:{toolchain.library.name}",
    ]


def _device_code(nvcc: Path) -> Iterator[str]:
    """Machine code for every GPU that this nvcc knows, and for newer ones what the driver translates."""
    listed = _run([os.fspath(nvcc), "--list-gpu-arch"])
    known = sorted(int(number) for number in re.findall(r"^compute_(\d+)$", listed, flags=re.MULTILINE))
    usable = [number for number in known if number >= _OLDEST_COMPUTE_CAPABILITY]
    if not usable:
        raise BackendError(f"{nvcc} compiles for no GPU since Volta: install CUDA 12 or newer")
    for number in usable:
        yield from ("-gencode", f"arch=compute_{number},code=sm_{number}")
    yield from ("-gencode", f"arch=compute_{usable[-1]},code=compute_{usable[-1]}")


def _find_library(include: Path, major: int) -> Path:
    """Libnvinfer of the headers' major version, beside them, where packages put it, or in TensorRT's wheels."""
    name = f"libnvinfer.so.{major}"
    places = [
        include.parent / "lib",
        *(Path("/usr/lib") / multiarch for multiarch in ("aarch64-linux-gnu", "x86_64-linux-gnu")),
        *(place.parent / "lib" for place in _existing(*_INCLUDES)),
        *_wheels(),
    ]
    for place in places:
        if (place / name).exists():
            return place / name
    raise BackendError(
        f"the headers in {include} are of TensorRT {major}, and there is no {name} on this machine: "
        f"sudo apt-get install libnvinfer{major} (from JetPack or NVIDIA's repository), or pip install tensorrt"
    )


def _wheels() -> Iterator[Path]:
    """Where the wheels of TensorRT keep its libraries; looks, and imports nothing."""
    for name in ("tensorrt_libs", "tensorrt"):
        spec = importlib.util.find_spec(name)
        if spec is not None:
            yield from (Path(place) for place in spec.submodule_search_locations or ())


def _find_nvcc() -> Path:
    on_path = shutil.which("nvcc")
    found = [Path(on_path)] if on_path else sorted(_existing(*_COMPILERS), reverse=True)
    if not found:
        raise BackendError(
            "the plugin needs CUDA's compiler nvcc, which is not on PATH nor below /usr/local/cuda: "
            "install the CUDA toolkit from NVIDIA (on a Jetson: sudo apt-get install nvidia-jetpack)"
        )
    return found[0]


def _existing(*patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")))


def _run(command: list[str]) -> str:
    """Standard output of a compiler's call, or BackendError with its first line of complaint."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise BackendError(f"cannot run {command[0]}: {error.strerror or error}") from error
    if result.returncode != 0:
        lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        complaint = next(
            (line for line in lines if "error" in line or "fatal" in line), (lines or ["nothing"])[0]
        )
        raise BackendError(f"{command[0]} does not compile the plugin; it says: {complaint.strip()}")
    return result.stdout
