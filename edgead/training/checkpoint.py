"""The checkpoint of an unfinished training: everything that continuing it needs, as plain tensors and numbers."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from edgead.data.stored_images import Images
from edgead.errors import RunError
from edgead.files.atomic import replace_file
from edgead.models.base import DistillationMethod

_DIGESTED = 16


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training after an epoch.

    Attributes:
        epoch: Number of finished epochs.
        images: Digest of the training images, the held-out images and the textures.
        student: Tensors of the student, by name.
        optimizer: State dict of the optimiser.
        scheduler: State dict of the learning-rate scheduler.
        precision: State dict of mixed precision; empty in single precision.
        losses_before: Held-out loss before each stage that has begun.
        metrics: One row for each finished epoch.
    """

    epoch: int
    images: str
    student: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    precision: dict[str, Any]
    losses_before: list[float]
    metrics: list[dict[str, float]]


def images_digest(textures: str, *arrays: Images | Tensor) -> str:
    """Return the SHA-256, in hex, of the fingerprint of the textures and the shapes and pixels of images.

    Args:
        textures: Fingerprint of the textures.
        *arrays: Images, (N, H, W, 3) uint8 RGB.
    """
    digest = hashlib.sha256(textures.encode())
    for images in arrays:
        digest.update(str(tuple(images.shape)).encode())
        for start in range(0, len(images), _DIGESTED):
            digest.update(np.ascontiguousarray(images[start : start + _DIGESTED]).data)
    return digest.hexdigest()


def student_state(method: DistillationMethod) -> dict[str, Tensor]:
    """Return the tensors of a method except the teacher's, which never change.

    Args:
        method: The method.

    Returns:
        Tensors by their names in `method.state_dict()`.
    """
    return {key: value for key, value in method.state_dict().items() if not key.startswith("teacher.")}


def load_student(method: DistillationMethod, state: dict[str, Tensor]) -> None:
    """Load the tensors of a student.

    Args:
        method: The method to load them into; its teacher stays as it is.
        state: Result of `student_state`.

    Raises:
        RuntimeError: A tensor is missing, unknown or of another shape.
    """
    missing, unexpected = method.load_state_dict(state, strict=False)
    lost = [key for key in missing if not key.startswith("teacher.")]
    if lost or unexpected:
        raise RuntimeError(f"the student's tensors do not fit: {[*lost, *unexpected][0]}")


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside the old one and rename it, so that a kill leaves a complete checkpoint.

    Args:
        file: File to write.
        checkpoint: The state to write.

    Raises:
        EdgeadError: The disk is full.
    """
    value = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    with replace_file(file) as partial, partial.open("wb") as stream:
        try:
            torch.save(value, stream)
        except RuntimeError as error:
            # torch replaces the OSError of the stream, which names the reason, by its own error.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def read_checkpoint(file: Path) -> Checkpoint | None:
    """Read a checkpoint onto the CPU. Code in the file is not executed.

    Args:
        file: File of `write_checkpoint`.

    Returns:
        The checkpoint; None if the file does not exist.

    Raises:
        RunError: The file is not a checkpoint.
    """
    if not file.exists():
        return None
    try:
        return Checkpoint(**torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken pickle makes torch raise nearly any exception, even an IndexError
        raise RunError(f"{file} is not a checkpoint", hint="remove it to train from the start") from error


class CheckpointKeeper:
    """Writes a checkpoint at intervals, and one more if the training is interrupted.

    It is a context manager. On KeyboardInterrupt it writes the state of the last finished epoch, so Ctrl-C loses only
    the epoch under way. A kill also loses the epochs since the last checkpoint.

    Args:
        file: File to write.
        every_s: Minimum time between two checkpoints, in seconds; a large student takes seconds to write.
    """

    def __init__(self, file: Path, every_s: float) -> None:
        self.file, self._every_s = file, every_s
        self._written_at = time.monotonic()
        self._waiting: Checkpoint | None = None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write the state, or keep a copy of it in memory until the next one.

        Args:
            checkpoint: State after the epoch that has just finished.

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
    """Copy the tensors in dictionaries and lists to the CPU, because training changes them in place."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copied(entry) for entry in value]
    return value
