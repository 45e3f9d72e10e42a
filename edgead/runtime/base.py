"""The session protocol: what the stream, the evaluation and the verified build know of a backend.

What is the same for every backend lives here too: the names and types of a graph's input and outputs, and
the check of a batch before it reaches a vendor's library, so that a wrong image gives the same sentence
everywhere.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edgead.errors import InputError
from edgead.types import Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Session(Protocol):
    """An opened model. A context manager; `close` may be called twice. Results belong to the caller."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One input: `images`, uint8, (N, H, W, 3), RGB."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`anomaly_map` float32 (N, 1, H, W) and `anomaly_score` float32 (N,)."""
        ...

    def infer(self, batch: UInt8Array) -> Prediction:
        """Score a batch.

        batch: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. Raises InputError for another shape or
        dtype, BackendError when the backend fails or the session is closed.
        """
        ...

    def close(self) -> None:
        """Release what the session holds."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def graph_inputs(height_px: int, width_px: int) -> tuple[TensorSpec, ...]:
    """Name, dtype and shape of the input of every graph at this image size."""
    return (TensorSpec("images", "uint8", (None, height_px, width_px, 3)),)


def graph_outputs(height_px: int, width_px: int) -> tuple[TensorSpec, ...]:
    """Names, dtypes and shapes of the outputs of every graph at this image size."""
    return (
        TensorSpec("anomaly_map", "float32", (None, 1, height_px, width_px)),
        TensorSpec("anomaly_score", "float32", (None,)),
    )


def check_batch(batch: UInt8Array, height_px: int, width_px: int) -> None:
    """Raise InputError unless the batch is (N, height_px, width_px, 3) uint8 with N >= 1."""
    if (
        batch.dtype == np.uint8
        and batch.ndim == 4
        and len(batch) >= 1
        and batch.shape[1:] == (height_px, width_px, 3)
    ):
        return
    raise InputError(
        f"a batch of shape {batch.shape} and type {batch.dtype} does not fit the model: it takes "
        f"(N, {height_px}, {width_px}, 3) uint8 RGB with N of 1 or more; resize with edgead.imaging.preprocess"
    )
