"""Read a checkpoint of another library without running anything that it holds.

A PyTorch file is a zip of raw tensors and one pickle, and a pickle is a program: it may name any function and call it.
torch's own `weights_only` reader knows tensors, containers and plain values alone, and refuses every other name. Of
the names that a library's checkpoints are known to hold, each is answered here by a class of ours that keeps what it is
given and does nothing: no module of the file is imported, no class of it is made. Any other name refuses the file.
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

# Reverse Distillation with WideResNet50-2 and the moments of its optimiser are 1.3 GiB.
MAX_FILE_BYTES = 4 * 2**30
# The pickle of it is 0.2 MiB.
MAX_PICKLE_BYTES = 16 * 2**20
MAX_MODULES = 20_000

# Libraries whose classes anomalib's checkpoints name, and bound methods, which exported modules keep.
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
_KNOWN_FUNCTIONS = ("builtins.getattr",)
# A dictionary of Lightning's: a plain one has the same items.
_DICTIONARIES = ("lightning.fabric.utilities.data.AttributeDict",)


class OpaqueObject:
    """What stands in the place of an object of another library: its class's name, and what it was made from.

    path: module and name of the class. args: what it was made with. state: its attributes, where the file has them.
    """

    path: str
    args: tuple[Any, ...]
    state: dict[str, Any]

    def __new__(cls, *args: Any) -> Self:
        """Keep the arguments."""
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __init__(self, *args: Any) -> None:
        """Take any arguments; they are kept already."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    @property
    def name(self) -> str:
        """Name of the class without its module."""
        return self.path.rpartition(".")[2]


def read_opaque(file: Path) -> Any:
    """What `torch.save` wrote, on the CPU: tensors, containers and plain values as they are, the rest as OpaqueObject.

    Raises InputError for a file that is missing, too large, cut short, not of `torch.save`, or that names a class or
    function which no known library's checkpoint needs.
    """
    _check_bounds(file)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception as error:  # a broken pickle makes torch raise nearly anything, an IndexError for one
        raise _not_a_checkpoint(file) from error
    for name in names:
        if not name.startswith(_KNOWN) and name not in _KNOWN_FUNCTIONS:
            raise InputError(
                f"{file} wants to run {name[:100]!r}, which no checkpoint of a model needs, and was not opened: get "
                "the file again from whom you trust"
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
    """The state dict of a pickled `torch.nn.Module`: its parameters and buffers by their full names.

    Raises ValueError when what is below it is no tree of modules.
    """
    return {
        f"{prefix}{name}": tensor
        for prefix, part in _modules(module)
        for kind in ("_parameters", "_buffers")
        for name, tensor in _dictionary(part, kind).items()
        if tensor is not None
    }


def _modules(module: OpaqueObject) -> Iterator[tuple[str, OpaqueObject]]:
    """A module and those below it, each with what its tensors' names begin with."""
    waiting, seen = [("", module)], 0
    while waiting:
        prefix, part = waiting.pop()
        seen += 1
        # Two modules that hold each other would go on for ever.
        if seen > MAX_MODULES or not isinstance(part, OpaqueObject):
            raise ValueError("no tree of modules")
        yield prefix, part
        waiting += [
            (f"{prefix}{name}.", child)
            for name, child in _dictionary(part, "_modules").items()
            if child is not None
        ]


def _dictionary(module: OpaqueObject, name: str) -> dict[str, Any]:
    value = module.state.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no dictionary")
    return value


def _check_bounds(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"no file {file}: give a checkpoint of anomalib (.ckpt, .pt) or of RD4AD (.pth)")
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _not_a_checkpoint(file) from error
    # Both, because what is unpacked may be larger than the file.
    size = max(file.stat().st_size, sum(entry.file_size for entry in entries))
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{file} holds {size} bytes, more than the {MAX_FILE_BYTES} allowed: not a checkpoint"
        )
    pickles = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if pickles > MAX_PICKLE_BYTES:
        raise InputError(
            f"{file} has a pickle of {pickles} bytes, more than the {MAX_PICKLE_BYTES} allowed: not a checkpoint"
        )


def _not_a_checkpoint(file: Path) -> InputError:
    return InputError(
        f"{file} is cut short or not a file of torch.save: copy it again from where it was trained"
    )
