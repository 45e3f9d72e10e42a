"""A recipe: what a target wants of a build, as TOML in `engines/targets/` or a file of the user's own.

Which library compiles, for which GPUs and batch sizes, how far what was built may be from the float32 model at each
precision, and in which order `--precision auto` tries precisions. A recipe is checked whole when it is read: an
unknown or missing key, a wrong type or a number out of range is refused with the key's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgead.engine.fidelity import Budget, Precision
from edgead.engine.precision_converter import Rung
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.errors import InputError
from edgead.files.parsing import parse_toml, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.types import BACKENDS, Backend

MAX_RECIPE_BYTES = 2**16

# It goes into the record of an engine, and into commands that a user copies.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")

_DEFAULTS: Mapping[str, str] = {"onnxruntime": "cpu", "tensorrt-rtx": "rtx-desktop"}


@dataclass(frozen=True, slots=True)
class Budgets:
    """How far a graph of each precision may be from the float32 one."""

    fp32: Budget
    fp16: Budget
    int8: Budget

    def of(self, precision: Precision) -> Budget:
        """The budget of one precision."""
        budget: Budget = getattr(self, precision)
        return budget


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a target wants of a build.

    description: one line. backend: of `BACKENDS`. fallback_order: what `--precision auto` tries, the fastest first.
    batch: pictures in one inference. budgets: by precision. tensorrt: None for onnxruntime. Raises InputError for an
    empty fallback order, one that names a precision twice, and settings of TensorRT with another backend or without
    them.
    """

    description: str
    backend: Backend
    fallback_order: tuple[Rung, ...]
    batch: BatchProfile
    budgets: Budgets
    tensorrt: TensorRTSettings | None = None

    def __post_init__(self) -> None:
        order = self.fallback_order
        if not order or len(set(order)) != len(order):
            raise InputError(f"fallback_order {list(order)} names no precision, or one twice: name each once")
        if (self.tensorrt is None) != (self.backend == "onnxruntime"):
            raise InputError(
                f"backend {self.backend!r} {'wants' if self.tensorrt is None else 'takes no'} table [tensorrt]"
            )


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with edgead."""
    return tuple(sorted(file.stem for file in _folder().glob("*.toml")))


def find_recipe(backend: str | None, recipe: str | None) -> tuple[str, Recipe]:
    """The recipe that a user asked for, and its name; that of a file of the user's own has its ending.

    backend: one of `BACKENDS`, None for the recipe's. recipe: a name of `recipe_names` or the path of a TOML file, None
    for the backend's usual one; `cpu` without either. Raises InputError for a name that is unknown, a backend that is
    not the recipe's, and what `read_recipe` raises.
    """
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"unknown --backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    names = recipe_names()
    if recipe is None:
        if (recipe := _DEFAULTS.get(backend or "onnxruntime")) is None:
            usable = [name for name in names if read_recipe(_folder() / f"{name}.toml").backend == backend]
            raise InputError(
                f"--backend {backend} needs to know the device: give --target {', '.join(usable)} or a file"
            )
    elif recipe not in names and not recipe.endswith(".toml"):
        raise InputError(
            f"unknown --target {recipe!r}: choose one of {', '.join(names)} or give a .toml file"
        )
    file = _folder() / f"{recipe}.toml" if recipe in names else Path(recipe)
    found = read_recipe(file)
    if backend is not None and found.backend != backend:
        raise InputError(f"target {recipe!r} is for {found.backend}, not for {backend}: leave out --backend")
    name = recipe if recipe in names else file.name
    if not _NAME.fullmatch(name):
        raise InputError(f"target file {name!r}: rename it to letters, digits, '.', '_', '+' and '-' alone")
    return name, found


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; InputError, one line with the file and the key, for anything that is none."""
    hint = "check the path, and see engines/targets for how a target is written"
    with record_errors(InputError, f"target {file} cannot be used", hint):
        table = parse_toml(read_bounded(file, MAX_RECIPE_BYTES), MAX_RECIPE_BYTES)
        return record_from(Recipe, table, defaults=True)


def _folder() -> Path:
    """Where the recipes lie: inside the installed package, or in the checkout beside it."""
    package = Path(__file__).resolve().parent
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent.parent / "engines" / "targets"
