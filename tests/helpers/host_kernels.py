"""The CUDA kernels and their launcher, compiled by g++ for the host and called with NumPy arrays.

What a GPU would hide shows here: whatever an output, the workspace or a channel's padding holds before is NaN, and so
is what lies beside every feature.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import edgead.plugin
from tests.helpers.kernel_cases import laid_out

SOURCES = Path(edgead.plugin.__file__).parent
HARNESS = Path(__file__).parent / "harness"
GUARD = 64  # elements of NaN on each side of every array

Format = Literal["float", "half", "half8"]
FORMATS: tuple[Format, ...] = ("float", "half", "half8")


class Shape(ctypes.Structure):
    """`edgead::Shape` of anomaly_map.h."""

    _fields_ = [(name, ctypes.c_int32) for name in ("batch", "height", "width", "scales")] + [
        (name, ctypes.c_int32 * 4) for name in ("channels", "feature_height", "feature_width")
    ]


class Spec(ctypes.Structure):
    """`edgead::Spec` of anomaly_map.h."""

    _fields_ = [
        ("multiply", ctypes.c_int32),
        ("sigma", ctypes.c_float),
        ("align_corners", ctypes.c_int32),
        ("weights", ctypes.c_float * 4),
    ]


class LaunchError(Exception):
    """The launcher did not return cudaSuccess."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{status} {what}".strip())
        self.status = status


def shape_of(features: Sequence[npt.NDArray[Any]], height: int, width: int) -> Shape:
    sizes = np.array([feature.shape for feature in features], np.int32)
    return Shape(
        len(features[0]), height, width, len(features), *(tuple(map(int, sizes[:, i])) for i in (1, 2, 3))
    )


def compile_host(folder: Path, sources: Path = SOURCES, optimization: str = "-O1") -> Path:
    """Compile the kernels in `sources` for the host. Returns the library; raises CalledProcessError."""
    library = folder / "host_kernels.so"
    compiler = shutil.which("g++")
    assert compiler is not None
    # Without contraction, and with FORTIFY's own idea of longjmp off: fibers jump between stacks.
    command = [
        compiler,
        "-std=c++17",
        optimization,
        "-ffp-contract=off",
        "-U_FORTIFY_SOURCE",
        "-shared",
        "-fPIC",
    ]
    command += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{HARNESS}", f"-I{sources}"]
    subprocess.run([*command, str(HARNESS / "harness.cpp"), "-o", str(library)], check=True)
    return library


def guarded(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A view of `size` NaN on 16 bytes, with GUARD more on both sides."""
    dtype = np.dtype(dtype)
    whole = np.full(size + 2 * GUARD + 16, np.nan, dtype)
    offset = -whole.ctypes.data % 16 // dtype.itemsize
    return whole[offset + GUARD : offset + GUARD + size]


def guarded_copy(values: npt.NDArray[Any], shift: int) -> npt.NDArray[Any]:
    """A flat copy, `shift` elements off its alignment."""
    flat = guarded(values.size + shift, values.dtype)[shift:]
    flat[:] = values
    return flat


@dataclass(frozen=True, slots=True)
class HostKernels:
    """A compiled library; calls are the operator on NumPy arrays."""

    library: Path

    def __call__(
        self,
        layout: Format,
        teacher: Sequence[npt.NDArray[Any]],
        student: Sequence[npt.NDArray[Any]],
        height: int,
        width: int,
        fusion: str = "add",
        sigma: float = 4.0,
        align_corners: bool = True,
        weights: Sequence[float] = (),
        *,
        multiprocessors: int = 16,
        turns: int = 0,
        shift: int = 0,
        failing_launch: int = -1,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Launch on a device of so many multiprocessors, threads in this order (0 forwards, 1 backwards, else mixed).

        Returns the map (N, 1, height, width) and the score (N,). Raises LaunchError.
        """
        library = ctypes.CDLL(str(self.library))
        library.workspace_bytes.restype = ctypes.c_size_t
        library.what_failed.restype = ctypes.c_char_p
        shape = shape_of(teacher, height, width)
        spec = Spec(fusion == "multiply", sigma, align_corners, tuple(weights) or (1.0,) * 4)
        features = [[guarded_copy(laid_out(f, layout), shift) for f in side] for side in (teacher, student)]
        pointers = [(ctypes.c_void_p * len(side))(*(f.ctypes.data for f in side)) for side in features]
        n = len(teacher[0])
        workspace = guarded(library.workspace_bytes(ctypes.byref(shape), ctypes.byref(spec)) // 4, np.float32)
        maps, scores = guarded(n * height * width, np.float32), guarded(n, np.float32)
        outputs = [ctypes.c_void_p(array.ctypes.data) for array in (workspace, maps, scores)]
        status = library.run(
            FORMATS.index(layout),
            ctypes.byref(shape),
            ctypes.byref(spec),
            *pointers,
            *outputs,
            multiprocessors,
            turns,
            failing_launch,
        )
        if status:
            raise LaunchError(status, library.what_failed().decode())
        for array in (workspace, maps, scores):
            whole = array.base
            assert isinstance(whole, np.ndarray)
            assert np.isnan(whole).sum() - np.isnan(array).sum() == len(whole) - len(array), "written outside"
        return maps.reshape(n, 1, height, width), scores
