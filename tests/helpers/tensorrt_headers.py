"""TensorRT's headers for tests, and the compilation of C++ against them.

They are taken from EDGEAD_TENSORRT_INCLUDE, a list of include directories with a colon between, or from where packages
put them. They are no part of this repository: github.com/NVIDIA/TensorRT has those of every version.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.plugin.build import find_include
from edgead.plugin.version import headers_version

DRIVER = Path(__file__).parent / "driver"
PLUGIN = Path(__file__).parents[2] / "edgead" / "plugin"
NO_HEADERS = "needs TensorRT's headers, as in github.com/NVIDIA/TensorRT: EDGEAD_TENSORRT_INCLUDE=DIR"


def headers() -> list[Path]:
    named = os.environ.get("EDGEAD_TENSORRT_INCLUDE")
    if named:
        return [Path(place) for place in named.split(os.pathsep)]
    try:
        return [find_include()]
    except BackendError:
        return []


def version_name(include: Path) -> str:
    return ".".join(map(str, headers_version(include)))


def cuda_include() -> Path:
    wheels = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (wheels.submodule_search_locations or ())] if wheels else []
    places = [
        *Path("/usr/local").glob("cuda*/include"),
        *(p for root in roots for p in root.glob("*/include")),
    ]
    for place in places:
        if (place / "cuda_runtime_api.h").is_file():
            return place
    pytest.skip("needs CUDA's headers: pip install nvidia-cuda-runtime")


def compile_cpp(include: Path, output: Path, sources: Sequence[Path], *options: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    command = [
        "g++",
        "-std=c++17",
        *("-Wall", "-Wextra", "-Wpedantic", "-Werror"),
        *options,
        f"-I{PLUGIN}",
        *("-isystem", str(include), "-isystem", str(cuda_include())),
        *map(str, sources),
        *("-ldl", "-o", str(output)),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def compile_version(library: Path, answers: dict[str, int]) -> Path:
    """A library of functions that each return a number, such as a libnvinfer with a version alone."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt-get install gcc")
    source = library.with_suffix(".c")
    source.write_text(
        "".join(f"int {name}(void) {{ return {number}; }}\n" for name, number in answers.items())
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def plugin_for_rtx(folder: Path) -> Path:
    """The plugin, with a launcher that runs nothing; what it needs of TensorRT is TensorRT-RTX's. Or skips."""
    # TensorRT 11 cut the registry's interface, and TensorRT-RTX has that one.
    include = next((place for place in headers() if headers_version(place)[0] == 11), None)
    if include is None:
        pytest.skip(f"{NO_HEADERS}, of TensorRT 11")
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None:
        pytest.skip("needs TensorRT-RTX: pip install tensorrt-rtx")
    (runtime,) = (
        file
        for place in spec.submodule_search_locations or ()
        for file in Path(place).glob("libtensorrt_rtx.so.*")
    )
    library = folder / "plugin.so"
    # Asked first and found in the plugin itself: TensorRT-RTX counts its own versions.
    sources = [
        PLUGIN / "tensorrt_plugin.cpp",
        DRIVER / "launcher.cpp",
        DRIVER / "library_version.cpp",
        runtime,
    ]
    compile_cpp(include, library, sources, "-O1", "-shared", "-fPIC", "-fvisibility=hidden")
    return library


def said_by(script: str, *arguments: str) -> str:
    """What a script of `driver` prints, however it ends."""
    command = [sys.executable, str(DRIVER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
