"""The state of an unfinished training: everything its continuation depends on, as plain tensors and numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from edgead.errors import RunError
from edgead.files.atomic import replace_file
from edgead.models.base import DistillationMethod


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after an epoch.

    epoch: number of epochs done. images: digest of the images trained on and held out. precision: state of mixed
    precision, empty without. losses_before: held-out loss before each stage begun. metrics: a row per epoch.
    """

    epoch: int
    images: str
    student: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    precision: dict[str, Any]
    losses_before: list[float]
    metrics: list[dict[str, float]]


def student_state(method: DistillationMethod) -> dict[str, Tensor]:
    """The tensors of a method without its teacher's, which never change."""
    return {key: value for key, value in method.state_dict().items() if not key.startswith("teacher.")}


def load_student(method: DistillationMethod, state: dict[str, Tensor]) -> None:
    """Put back what `student_state` gave. Raises RuntimeError when a tensor is missing or does not fit."""
    missing, unexpected = method.load_state_dict(state, strict=False)
    lost = [key for key in missing if not key.startswith("teacher.")]
    if lost or unexpected:
        raise RuntimeError(f"the student's tensors do not fit: {[*lost, *unexpected][0]}")


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write beside and rename: a kill leaves the last checkpoint whole. Raises EdgeadError when the disk is full."""
    value = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    with replace_file(file) as partial, partial.open("wb") as stream:
        try:
            torch.save(value, stream)
        except RuntimeError as error:
            # torch hides why the stream could not be written.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def read_checkpoint(file: Path) -> Checkpoint | None:
    """Read a checkpoint onto the CPU, None where there is none. Nothing in the file is executed.

    Raises RunError when it is not a checkpoint.
    """
    if not file.exists():
        return None
    try:
        return Checkpoint(**torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken pickle makes torch raise nearly anything, an IndexError for one
        raise RunError(f"{file} is not a checkpoint: remove it to train from the start") from error


class CheckpointKeeper:
    """Writes the state after an epoch now and then, and the last one when the training is interrupted.

    A context manager: on KeyboardInterrupt the state of the last finished epoch is written, so Ctrl-C costs the epoch
    under way alone. A kill costs the epochs since the last file, too.

    Args:
        file: File to write.
        every_s: Seconds between two files. Writing the checkpoint of a large student takes seconds.
    """

    def __init__(self, file: Path, every_s: float) -> None:
        self.file, self._every_s = file, every_s
        self._written_at = time.monotonic()
        self._waiting: Checkpoint | None = None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write the state, or keep a copy until the next one comes.

        Raises:
            EdgeadError: The disk is full.
        """
        if time.monotonic() - self._written_at >= self._every_s:
            self._waiting = None
            write_checkpoint(self.file, checkpoint)
            self._written_at = time.monotonic()
        else:
            values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
            self._waiting = Checkpoint(**_copied(values))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and self._waiting is not None:
            write_checkpoint(self.file, self._waiting)


def _copied(value: Any) -> Any:
    """A copy on the CPU of tensors in dictionaries and lists, which training goes on changing."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copied(entry) for entry in value]
    return value
