"""Targets: requirements of a device, as TOML files in `engines/targets/` or files of the user.

A target sets the backend, GPUs, batch sizes, the tolerance of each precision, and the fallback order of `--precision
auto`. A target is checked completely when it is read. An unknown or missing key, a wrong type, or a number out of range
is rejected with the name of the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead.engine.fidelity import Precision, Tolerance
from edgead.engine.precision_converter import CandidatePrecision
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import InputError
from edgead.files.parsing import parse_toml, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.runtime.tensorrt.library import TENSORRT_BACKENDS
from edgead.types import BACKENDS, Backend

MAX_TARGET_BYTES = 2**16

# The name is written to the record of an engine, and to commands that a user copies.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")

_DEFAULTS: Mapping[str, str] = {
    "onnxruntime": "cpu",
    "openvino": "intel",
    "openvino-gpu": "intel-gpu",
    "openvino-npu": "intel-npu",
    "tensorrt-rtx": "rtx-desktop",
}


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerance of each precision for differences from the float32 graph.

    Attributes:
        fp32: Tolerance of a float32 engine.
        fp16: Tolerance of float16.
        int8: Tolerance of INT8.
    """

    fp32: Tolerance
    fp16: Tolerance
    int8: Tolerance

    def of(self, precision: Precision) -> Tolerance:
        """Return the tolerance of one precision.

        Args:
            precision: Precision, one of `PRECISIONS`.
        """
        tolerance: Tolerance = getattr(self, precision)
        return tolerance


@dataclass(frozen=True, slots=True)
class Target:
    """Requirements of a device.

    Attributes:
        description: Description of the device, one line.
        backend: Backend that runs the bundle, one of `BACKENDS`.
        fallback_order: Candidate precisions that `--precision auto` tries, fastest first.
        batch: Numbers of images in one inference.
        tolerances: Tolerance of each precision.
        tensorrt: Settings of the compiler; None for a backend other than TensorRT.

    Raises:
        InputError: If the fallback order is empty, names a precision twice or one that the backend cannot compute, a
            TensorRT backend has no settings, or another one has settings.
    """

    description: str
    backend: Backend
    fallback_order: tuple[CandidatePrecision, ...]
    batch: BatchProfile
    tolerances: Tolerances
    tensorrt: TensorRTSettings | None = None

    def __post_init__(self) -> None:
        order = self.fallback_order
        if not order or len(set(order)) != len(order):
            raise InputError(
                f"fallback_order is {list(order)}", hint="name one precision or more, and each of them once"
            )
        self.check_precisions(order, f"fallback_order is {list(order)}")
        if (self.tensorrt is None) == (self.backend in TENSORRT_BACKENDS):
            raise InputError(
                f"backend {self.backend!r} is {'without' if self.tensorrt is None else 'with'} a table [tensorrt]",
                hint=f"{'add' if self.tensorrt is None else 'remove'} the table",
            )

    def check_precisions(self, precisions: Sequence[str], asked: str) -> None:
        """Check before any work that the backend can compute some precisions.

        Args:
            precisions: Precisions or candidate precisions.
            asked: Description of the request, at the beginning of the message.

        Raises:
            InputError: If one is INT8 and the backend is TensorRT for RTX, or float32 and the backend is an NPU.
        """
        # Source: NVIDIA, "TensorRT-RTX documentation", support matrix.
        if self.backend == "tensorrt-rtx" and any(name.startswith("int8") for name in precisions):
            raise InputError(
                f"{asked}, and TensorRT for RTX supports INT8 for weights only: INT8 moves more memory than fp16",
                hint="build fp16 for this target",
            )
        # Source: Intel, "OpenVINO documentation", NPU device, supported inference data types.
        if self.backend == "openvino-npu" and "fp32" in precisions:
            raise InputError(f"{asked}, and an NPU computes in float16", hint="build fp16 for this target")


def target_names() -> tuple[str, ...]:
    """List the names of the targets that edgead contains, sorted."""
    return tuple(sorted(file.stem for file in _folder().glob("*.toml")))


def find_target(backend: str | None, target: str | None) -> tuple[str, Target]:
    """Find the target for the options of a user.

    Args:
        backend: Value of `--backend`, one of `BACKENDS`. None takes the backend of the target.
        target: Value of `--target`: a name of `target_names` or the path of a TOML file. None takes the usual target of
            the backend, which is `cpu` without a backend.

    Returns:
        The name and the target. The name of a TOML file includes the suffix.

    Raises:
        InputError: If a name is unknown, the target has another backend, or `read_target` rejects the file.
    """
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"unknown --backend {backend!r}", hint=f"choose one of {', '.join(BACKENDS)}")
    names = target_names()
    if target is None:
        if (target := _DEFAULTS.get(backend or "onnxruntime")) is None:
            usable = [name for name in names if read_target(_folder() / f"{name}.toml").backend == backend]
            raise InputError(
                f"--backend {backend} has no default target",
                hint=f"give --target with one of {', '.join(usable)} or a .toml file",
            )
    elif target not in names and not target.endswith(".toml"):
        raise InputError(
            f"unknown --target {target!r}", hint=f"choose one of {', '.join(names)} or give a .toml file"
        )
    file = _folder() / f"{target}.toml" if target in names else Path(target)
    found = read_target(file)
    if backend is not None and found.backend != backend:
        raise InputError(
            f"target {target!r} is for {found.backend}, not for {backend}", hint="leave out --backend"
        )
    name = target if target in names else file.name
    if not _NAME.fullmatch(name):
        raise InputError(
            f"target file {name!r} has a name that no record can hold",
            hint="rename it to at most 128 letters, digits, '_', '+', '-' and '.', without '.' at the start",
        )
    return name, found


def read_target(file: Path) -> Target:
    """Read and check a target.

    Args:
        file: TOML file.

    Returns:
        The target.

    Raises:
        InputError: If the file cannot be read or is not a valid target. The message names the file and the key.
    """
    hint = "check the path, and see engines/targets for how a target is written"
    with record_errors(InputError, f"target {file} cannot be used", hint):
        table = parse_toml(read_bounded(file, MAX_TARGET_BYTES), MAX_TARGET_BYTES)
        return record_from(Target, table, defaults=True)


def _folder() -> Path:
    """Find the folder of the targets: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent.parent / "engines" / "targets"
