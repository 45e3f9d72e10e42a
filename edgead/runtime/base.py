"""The session protocol, which the stream, the evaluation and the build use instead of a backend.

Everything that is the same for every backend is here too: the names and types of a graph's input and outputs, and the
check of a batch before it reaches a vendor's library, so that a wrong image gives the same message everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edgead.errors import BackendError, InputError
from edgead.files.memory import host_bytes
from edgead.types import Closing, Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgead.imaging.preprocess import ModelSize

REBUILD_MODEL = "rebuild it with 'edgead build'"
"""Hint for a model that a library refuses."""

MEMORY_SHARE = 0.75
"""Share of the memory of the machine or container that sessions of untrusted models get on a CPU. A product of two
vectors in a small file may ask for more; then it is an error of the session, and the kernel does not kill the process.
"""


@runtime_checkable
class Session(Protocol):
    """An opened model; a context manager.

    The arrays of a result belong to the caller: a later call does not change them.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the model: one, `images`, uint8 (N, H, W, 3), RGB."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model: `anomaly_map` float32 (N, 1, H, W) and `anomaly_score` float32 (N,)."""
        ...

    def infer(self, batch: UInt8Array) -> Prediction:
        """Score a batch.

        Args:
            batch: (N, H, W, 3) uint8 RGB at the model's size, N >= 1.

        Returns:
            Anomaly maps and scores of the N images.

        Raises:
            InputError: If the batch has another shape or dtype.
            BackendError: If the backend fails or the session is closed.
        """
        ...

    def close(self) -> None:
        """Release the memory, threads and files of the session; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def graph_inputs(height_px: int, width_px: int) -> tuple[TensorSpec, ...]:
    """Return the input that every graph of an image size has.

    Args:
        height_px: Height of the images, in pixels.
        width_px: Width of the images, in pixels.

    Returns:
        One spec: `images`, uint8 (N, H, W, 3).
    """
    return (TensorSpec("images", "uint8", (None, height_px, width_px, 3)),)


def graph_outputs(height_px: int, width_px: int) -> tuple[TensorSpec, ...]:
    """Return the outputs that every graph of an image size has.

    Args:
        height_px: Height of the images, in pixels.
        width_px: Width of the images, in pixels.

    Returns:
        Two specs: `anomaly_map` float32 (N, 1, H, W) and `anomaly_score` float32 (N,).
    """
    return (
        TensorSpec("anomaly_map", "float32", (None, 1, height_px, width_px)),
        TensorSpec("anomaly_score", "float32", (None,)),
    )


class SizedSession(Closing):
    """Base of the sessions of one image size, which gives them the inputs and outputs of every graph of that size."""

    _height_px: int
    _width_px: int

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """See `Session.inputs`."""
        return graph_inputs(self._height_px, self._width_px)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """See `Session.outputs`."""
        return graph_outputs(self._height_px, self._width_px)


def specs_text(specs: Sequence[TensorSpec]) -> str:
    """Describe inputs or outputs in a message.

    Args:
        specs: Inputs or outputs of a model.

    Returns:
        Name, dtype and shape of each, such as "anomaly_score float32 (N)"; N stands for a free length.
    """
    return ", ".join(
        f"{spec.name} {spec.dtype} ({', '.join('N' if size is None else str(size) for size in spec.shape)})"
        for spec in specs
    )


def checked_size(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], name: str, size: ModelSize | None
) -> tuple[int, int]:
    """Check the inputs and outputs of a model that a library has loaded.

    Args:
        inputs: Inputs of the model.
        outputs: Outputs of the model, in any order.
        name: Name of the model, for messages.
        size: Image size that the model must take; None for any size.

    Returns:
        Height and width of the images, in pixels.

    Raises:
        BackendError: If the model has other inputs or outputs than `graph_inputs` and `graph_outputs`, or takes images
            of another size.
    """
    shape = inputs[0].shape if len(inputs) == 1 else ()
    height_px, width_px = shape[1:3] if len(shape) == 4 else (None, None)
    if height_px is None or width_px is None or inputs[0] != graph_inputs(height_px, width_px)[0]:
        raise BackendError(
            f"{name} takes {specs_text(inputs)}, not images uint8 (N, H, W, 3)", hint=REBUILD_MODEL
        )
    expected = graph_outputs(height_px, width_px)
    if sorted(outputs, key=lambda spec: spec.name) != list(expected):
        raise BackendError(
            f"{name} gives {specs_text(outputs)}, not {specs_text(expected)}", hint=REBUILD_MODEL
        )
    if size is not None and (height_px, width_px) != (size.height_px, size.width_px):
        raise BackendError(
            f"{name} takes images of {height_px}x{width_px}, and its bundle is for "
            f"{size.height_px}x{size.width_px}",
            hint=REBUILD_MODEL,
        )
    return height_px, width_px


def check_batch(batch: UInt8Array, height_px: int, width_px: int) -> None:
    """Check the shape and dtype of a batch.

    Args:
        batch: Array to check.
        height_px: Height of the model's images, in pixels.
        width_px: Width of the model's images, in pixels.

    Raises:
        InputError: If the batch is not (N, height_px, width_px, 3) uint8 with N >= 1.
    """
    if (
        batch.dtype == np.uint8
        and batch.ndim == 4
        and len(batch) >= 1
        and batch.shape[1:] == (height_px, width_px, 3)
    ):
        return
    raise InputError(
        f"a batch of shape {batch.shape} and type {batch.dtype} does not fit the model, which takes "
        f"(N, {height_px}, {width_px}, 3) uint8 RGB with N of 1 or more",
        hint="resize with edgead.imaging.preprocess",
    )


def memory_limit_bytes() -> int:
    """Return the memory that the session of an untrusted model may take: `MEMORY_SHARE` of the machine or container."""
    return int(MEMORY_SHARE * host_bytes())


def largest_batch(session: Session) -> int:
    """Return the number of images that a session scores together in less time than one after another.

    On a CPU a batch takes as long as its images alone, and the verdict on the first would wait for the last. So this is
    1 for a session without an attribute `largest_batch`.

    Args:
        session: Opened model.
    """
    found: int = getattr(session, "largest_batch", 1)
    return found
