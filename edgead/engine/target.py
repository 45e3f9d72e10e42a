"""A target: what a device needs of a build, as TOML in `engines/targets/` or a file of the user's own.

Which library compiles, for which GPUs and batch sizes, how far what was built may be from the float32 model at each
precision, and in which order `--precision auto` tries precisions. A target is checked whole when it is read: an
unknown or missing key, a wrong type or a number out of range is refused with the key's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgead.engine.fidelity import Precision, Tolerance
from edgead.engine.precision_converter import CandidatePrecision
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import InputError
from edgead.files.parsing import parse_toml, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.types import BACKENDS, Backend

MAX_TARGET_BYTES = 2**16

# It goes into the record of an engine, and into commands that a user copies.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")

_DEFAULTS: Mapping[str, str] = {"onnxruntime": "cpu", "tensorrt-rtx": "rtx-desktop"}


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far a graph of each precision may be from the float32 one."""

    fp32: Tolerance
    fp16: Tolerance
    int8: Tolerance

    def of(self, precision: Precision) -> Tolerance:
        """The tolerance of one precision."""
        tolerance: Tolerance = getattr(self, precision)
        return tolerance


@dataclass(frozen=True, slots=True)
class Target:
    """What a device needs of a build.

    description: one line. backend: of `BACKENDS`. fallback_order: what `--precision auto` tries, the fastest first.
    batch: images in one inference. tolerances: by precision. tensorrt: None for onnxruntime. Raises InputError for an
    empty fallback order, one that names a precision twice, and settings of TensorRT with another backend or without
    them.
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
            raise InputError(f"fallback_order {list(order)} names no precision, or one twice: name each once")
        if (self.tensorrt is None) != (self.backend == "onnxruntime"):
            raise InputError(
                f"backend {self.backend!r} {'wants' if self.tensorrt is None else 'takes no'} table [tensorrt]"
            )


def target_names() -> tuple[str, ...]:
    """Names of the targets that come with edgead."""
    return tuple(sorted(file.stem for file in _folder().glob("*.toml")))


def find_target(backend: str | None, target: str | None) -> tuple[str, Target]:
    """The target that a user asked for, and its name; that of a file of the user's own has its ending.

    backend: one of `BACKENDS`, None for the target's. target: a name of `target_names` or the path of a TOML file, None
    for the backend's usual one; `cpu` without either. Raises InputError for a name that is unknown, a backend that is
    not the target's, and what `read_target` raises.
    """
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"unknown --backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    names = target_names()
    if target is None:
        if (target := _DEFAULTS.get(backend or "onnxruntime")) is None:
            usable = [name for name in names if read_target(_folder() / f"{name}.toml").backend == backend]
            raise InputError(
                f"--backend {backend} needs to know the device: give --target {', '.join(usable)} or a file"
            )
    elif target not in names and not target.endswith(".toml"):
        raise InputError(
            f"unknown --target {target!r}: choose one of {', '.join(names)} or give a .toml file"
        )
    file = _folder() / f"{target}.toml" if target in names else Path(target)
    found = read_target(file)
    if backend is not None and found.backend != backend:
        raise InputError(f"target {target!r} is for {found.backend}, not for {backend}: leave out --backend")
    name = target if target in names else file.name
    if not _NAME.fullmatch(name):
        raise InputError(f"target file {name!r}: rename it to letters, digits, '.', '_', '+' and '-' alone")
    return name, found


def read_target(file: Path) -> Target:
    """Read a target; InputError, one line with the file and the key, for anything that is none."""
    hint = "check the path, and see engines/targets for how a target is written"
    with record_errors(InputError, f"target {file} cannot be used", hint):
        table = parse_toml(read_bounded(file, MAX_TARGET_BYTES), MAX_TARGET_BYTES)
        return record_from(Target, table, defaults=True)


def _folder() -> Path:
    """Where the targets lie: inside the installed package, or in the checkout beside it."""
    package = Path(__file__).resolve().parent
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent.parent / "engines" / "targets"
