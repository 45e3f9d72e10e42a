"""The session protocol, which the stream, the evaluation and the build use instead of a backend.

Everything that is the same for every backend is here too: the names and types of a graph's input and outputs, and the
check of a batch before it reaches a vendor's library, so that a wrong image gives the same message everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edgead.errors import InputError
from edgead.types import Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self


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
