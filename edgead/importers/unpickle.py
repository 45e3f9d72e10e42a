"""Read a checkpoint of another library without running any code in it.

A PyTorch file is a zip of raw tensors and one pickle. A pickle is a program: it may name any function and call it.
torch's `weights_only` reader accepts tensors, containers and plain values, and refuses every other name. This module
substitutes an opaque class for each name that checkpoints of the known libraries hold. The opaque class keeps its
arguments and does nothing else. No module of the file is imported, and no class of it is instantiated. A file with any
other name is refused.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from edgead.errors import InputError

# A checkpoint of Reverse Distillation with WideResNet50-2 and its optimiser's moments has 1.3 GiB.
MAX_FILE_BYTES = 4 * 2**30
# The pickle of that checkpoint has 0.2 MiB.
MAX_PICKLE_BYTES = 16 * 2**20
MAX_MODULES = 20_000

# Libraries with classes that anomalib's checkpoints name.
_KNOWN = (
    "anomalib.",
    "kornia.",
    "lightning.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "timm.",
    "torch.nn.",
    "torchmetrics.",
    "torchvision.",
)
# Exported modules keep bound methods, which are pickled as calls of getattr.
_KNOWN_FUNCTIONS = ("builtins.getattr",)
# Dictionary classes of Lightning. An OrderedDict holds the same items.
_DICTIONARIES = ("lightning.fabric.utilities.data.AttributeDict",)


class OpaqueObject:
    """Replaces an object of another library: the name of its class, its arguments and its attributes.

    Args:
        *args: Arguments that the object was created with.

    Attributes:
        path: Module and name of the class.
        args: Arguments that the object was created with.
        state: Attributes of the object; empty if the file has none.
    """

    path: str
    args: tuple[Any, ...]
    state: dict[str, Any]

    def __new__(cls, *args: Any) -> Self:
        """Keep the arguments, because pickle may create an object without `__init__`."""
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __init__(self, *args: Any) -> None:
        """Accept any arguments; `__new__` has kept them."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    @property
    def name(self) -> str:
        """Name of the class without its module."""
        return self.path.rpartition(".")[2]


def read_opaque(file: Path) -> Any:
    """Read a file of `torch.save` onto the CPU.

    Args:
        file: The file.

    Returns:
        The content: tensors, containers and plain values as they are, other objects as OpaqueObject.

    Raises:
        InputError: The file is missing, too large, cut short or not from `torch.save`, or it names a class or function
            that no checkpoint of a known library needs.
    """
    _check_bounds(file)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception as error:  # a broken pickle makes torch raise nearly any exception, even an IndexError
        raise _not_a_checkpoint(file) from error
    for name in names:
        if not name.startswith(_KNOWN) and name not in _KNOWN_FUNCTIONS:
            raise InputError(
                f"{file} was not opened, because it would run {name[:100]!r}, which no checkpoint of a model needs",
                hint="get the file again from a source that you trust",
            )
    answers: list[Any] = [
        (
            OrderedDict if name in _DICTIONARIES else type("OpaqueObject", (OpaqueObject,), {"path": name}),
            name,
        )
        for name in names
    ]
    try:
        with torch.serialization.safe_globals(answers):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise _not_a_checkpoint(file) from error


def tensors_of(module: OpaqueObject) -> dict[str, Tensor]:
    """Return the state dict of a pickled `torch.nn.Module`.

    Args:
        module: The pickled module.

    Returns:
        Parameters and buffers by their full names.

    Raises:
        ValueError: The object is not a tree of modules.
    """
    return {
        f"{prefix}{name}": tensor
        for prefix, part in _modules(module)
        for kind in ("_parameters", "_buffers")
        for name, tensor in _dictionary(part, kind).items()
        if tensor is not None
    }


def _modules(module: OpaqueObject) -> Iterator[tuple[str, OpaqueObject]]:
    """Iterate over a module and its submodules, each with the prefix of its tensors' names."""
    waiting, seen = [("", module)], 0
    while waiting:
        prefix, part = waiting.pop()
        seen += 1
        # Without a limit, two modules that hold each other would never end.
        if seen > MAX_MODULES or not isinstance(part, OpaqueObject):
            raise ValueError("not a tree of modules")
        yield prefix, part
        waiting += [
            (f"{prefix}{name}.", child)
            for name, child in _dictionary(part, "_modules").items()
            if child is not None
        ]


def _dictionary(module: OpaqueObject, name: str) -> dict[str, Any]:
    """Return a dictionary attribute of a pickled module; ValueError if it is something else."""
    value = module.state.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"not a tree of modules ({name} is not a dictionary)")
    return value


def _check_bounds(file: Path) -> None:
    """Raise InputError for a file that is missing, not a zip archive, or too large when unpacked."""
    if not file.is_file():
        raise InputError(
            f"no file {file}", hint="give a checkpoint of anomalib (.ckpt, .pt) or of RD4AD (.pth)"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _not_a_checkpoint(file) from error
    # Both sizes, because a compressed entry may be larger than the file.
    size = max(file.stat().st_size, sum(entry.file_size for entry in entries))
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{file} has {size} bytes, more than the limit of {MAX_FILE_BYTES}",
            hint="give a checkpoint of anomalib or of RD4AD",
        )
    pickles = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if pickles > MAX_PICKLE_BYTES:
        raise InputError(
            f"{file} has a pickle of {pickles} bytes, more than the limit of {MAX_PICKLE_BYTES}",
            hint="give a checkpoint of anomalib or of RD4AD",
        )


def _not_a_checkpoint(file: Path) -> InputError:
    return InputError(
        f"{file} is cut short or not a file of torch.save",
        hint="copy the checkpoint again from the machine that trained it",
    )
