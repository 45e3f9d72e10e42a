"""Compile the TensorRT plugin into one library, with the headers, the library and the compiler of this machine.

A plugin works with one version of TensorRT, and with the GPUs that its compiler knows, so no library works
everywhere. It is compiled once on the machine, or in the container, that builds the engines. The kernels are compiled
for every GPU that the compiler knows and that supports constant kernel arguments. The library may therefore be copied
to another machine with the same TensorRT.

The library registers itself when it is loaded, and needs libnvinfer to do so. It is linked with libnvinfer, so that the
loader initialises libnvinfer first.
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
from edgead.plugin.version import Version, check_headers, check_library

_SOURCES = ("anomaly_map.cu", "tensorrt_plugin.cpp")
_OLDEST_COMPUTE_CAPABILITY = 70  # the kernels' arguments are __grid_constant__, which needs Volta

# Directories of JetPack, NVIDIA's Debian packages and its containers, then usual places of unpacked archives.
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
    """Headers, library and compiler for the plugin.

    Attributes:
        include: Directory of NvInfer.h.
        library: Path of libnvinfer.so.MAJOR.
        version: Version of TensorRT, of its headers and of the library.
        nvcc: Path of CUDA's compiler.
    """

    include: Path
    library: Path
    version: Version
    nvcc: Path


@dataclass(frozen=True, slots=True)
class BuiltPlugin:
    """A compiled plugin.

    Attributes:
        path: Path of the library.
        sha256: SHA-256 of the library, in hex.
        tensorrt: Version of the TensorRT that the library works with.
    """

    path: Path
    sha256: str
    tensorrt: Version


def build_plugin(out: Path, include: Path | None = None) -> BuiltPlugin:
    """Compile the plugin, whole or not at all.

    Args:
        out: Directory of the library. It is created if it does not exist.
        include: Directory of TensorRT's headers; None to search the directories of NVIDIA's packages.

    Returns:
        The compiled plugin.

    Raises:
        InputError: `out` is not a directory.
        BackendError: Headers, library or compiler are missing, and the message names their source; or the compiler
            fails.
    """
    check_directory(out)
    toolchain = find_toolchain(include)
    target = out / LIBRARY_NAME
    with replace_file(target) as partial:
        _run([os.fspath(toolchain.nvcc), *compile_options(toolchain), "-o", os.fspath(partial)])
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    return BuiltPlugin(target, digest, toolchain.version)


def find_toolchain(include: Path | None = None) -> Toolchain:
    """Find headers, libnvinfer and nvcc.

    Args:
        include: Directory of TensorRT's headers; None to search the directories of NVIDIA's packages.

    Returns:
        The paths and the version of TensorRT.

    Raises:
        BackendError: One is missing, and the message tells how to get it; or the headers are too old or of another
            version than libnvinfer.
    """
    headers = find_include(include)
    version = check_headers(headers)
    library = _find_library(headers, version[0])
    check_library(library, version)
    return Toolchain(headers, library, version, _find_nvcc())


def find_include(include: Path | None = None) -> Path:
    """Find the directory of NvInfer.h.

    Args:
        include: The only directory to search; None to search the directories of NVIDIA's packages.

    Raises:
        BackendError: There are no headers.
    """
    places = [include] if include else list(_existing(*_INCLUDES))
    for place in places:
        if (place / "NvInfer.h").is_file() and (place / "NvInferVersion.h").is_file():
            return place
    where = f"in {include}" if include else "on this machine"
    raise BackendError(
        f"the plugin needs TensorRT's headers, and there is no NvInfer.h {where}",
        hint="sudo apt-get install libnvinfer-headers-dev (from JetPack or NVIDIA's repository), "
        "or --tensorrt-include DIR with the include directory of github.com/NVIDIA/TensorRT",
    )


def compile_options(toolchain: Toolchain) -> list[str]:
    """Return the arguments of nvcc, except the output.

    Args:
        toolchain: Headers, library and compiler.

    Raises:
        BackendError: nvcc cannot be run, or does not compile for any GPU since Volta.
    """
    sources = Path(__file__).parent
    return [
        "-std=c++17",
        "-O3",
        "-shared",
        # Hidden names do not clash with another plugin in the process, and undefined names fail here, not when loaded.
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
    """Yield options for machine code for every GPU that this nvcc knows, and PTX for newer GPUs."""
    listed = _run([os.fspath(nvcc), "--list-gpu-arch"])
    known = sorted(int(number) for number in re.findall(r"^compute_(\d+)$", listed, flags=re.MULTILINE))
    usable = [number for number in known if number >= _OLDEST_COMPUTE_CAPABILITY]
    if not usable:
        raise BackendError(f"{nvcc} compiles for no GPU since Volta", hint="install CUDA 12 or newer")
    for number in usable:
        yield from ("-gencode", f"arch=compute_{number},code=sm_{number}")
    yield from ("-gencode", f"arch=compute_{usable[-1]},code=compute_{usable[-1]}")


def _find_library(include: Path, major: int) -> Path:
    """Find libnvinfer of a major version: beside the headers, in the system, or in TensorRT's wheels."""
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
        f"the headers in {include} are of TensorRT {major}, and there is no {name} on this machine",
        hint=f"sudo apt-get install libnvinfer{major} (from JetPack or NVIDIA's repository), or pip install tensorrt",
    )


def _wheels() -> Iterator[Path]:
    """Yield the directories in which wheels keep the libraries of TensorRT, without importing TensorRT."""
    for name in ("tensorrt_libs", "tensorrt"):
        spec = importlib.util.find_spec(name)
        if spec is not None:
            yield from (Path(place) for place in spec.submodule_search_locations or ())


def _find_nvcc() -> Path:
    on_path = shutil.which("nvcc")
    found = [Path(on_path)] if on_path else sorted(_existing(*_COMPILERS), reverse=True)
    if not found:
        raise BackendError(
            "the plugin needs CUDA's compiler nvcc, which is neither on PATH nor below /usr/local/cuda",
            hint="install the CUDA toolkit from NVIDIA (on a Jetson: sudo apt-get install nvidia-jetpack)",
        )
    return found[0]


def _existing(*patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")))


def _run(command: list[str]) -> str:
    """Run a compiler and return its standard output; BackendError with its first error line if it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise BackendError(
            f"cannot run {command[0]} ({error.strerror or error})",
            hint="install the CUDA toolkit again, or put another nvcc on PATH",
        ) from error
    if result.returncode != 0:
        lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        complaint = next(
            (line for line in lines if "error" in line or "fatal" in line), (lines or ["nothing"])[0]
        )
        raise BackendError(
            f"{command[0]} does not compile the plugin ({complaint.strip()})",
            hint="use a CUDA toolkit and TensorRT headers that fit each other",
        )
    return result.stdout
