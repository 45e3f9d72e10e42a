"""TensorRT's headers for tests, and the compilation of C++ against them.

They are taken from EDGEAD_TENSORRT_INCLUDE, a list of include directories with a colon between, or from where packages
put them. They are no part of this repository: github.com/NVIDIA/TensorRT has those of every version.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgead.errors import BackendError
from edgead.plugin.build import find_include, tensorrt_version

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
    return ".".join(map(str, tensorrt_version(include)))


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
