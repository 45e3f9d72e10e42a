"""The part of `engine.json` for an engine that ends in features: their type and sizes, and the head behind them.

TensorRT for RTX takes no plugins. There the session launches the kernels, and it needs the attributes of the graph's
node. The numbers reach addresses on the GPU, so they are read as strictly as the rest of the record, and the outputs of
the engine must agree with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgead.plugin.launches import MAX_SCALES, FeatureShape
from edgead.types import HeadSpec, TensorSpec

_BYTES = {"float32": 4, "float16": 2}
_MAX_LENGTH = 2**16


@dataclass(frozen=True, slots=True)
class FeatureRecord:
    """The outputs of an engine of features, and the operator that takes them.

    Attributes:
        dtype: Type of all features: float32 or float16.
        shapes: Shape (C_k, H_k, W_k) of each scale k, the same for teacher and student.
        head: Attributes of the operator.

    Raises:
        ValueError: If a value is out of range; the message names the field.
    """

    dtype: str
    shapes: tuple[tuple[int, int, int], ...]
    head: HeadSpec

    def __post_init__(self) -> None:
        if self.dtype not in _BYTES:
            raise ValueError(f"'dtype' is {self.dtype[:80]!r}, not {' or '.join(_BYTES)}")
        lengths = [length for shape in self.shapes for length in shape]
        if not 1 <= len(self.shapes) <= MAX_SCALES or not all(1 <= n <= _MAX_LENGTH for n in lengths):
            raise ValueError(f"'shapes' is no list of 1 to {MAX_SCALES} shapes [C, H, W]")
        if max(self.head.height, self.head.width, self.head.sigma) > _MAX_LENGTH:
            raise ValueError(f"'height', 'width' or 'sigma' of the head is larger than {_MAX_LENGTH}")
        self.head.weights_of(len(self.shapes))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the engine: teacher_features_1..K, then student_features_1..K, each (N, C_k, H_k, W_k)."""
        return tuple(
            TensorSpec(f"{side}_features_{k}", self.dtype, (None, *shape))
            for side in ("teacher", "student")
            for k, shape in enumerate(self.shapes, start=1)
        )

    def bytes_of_image(self) -> Iterator[tuple[str, int]]:
        """List the memory of the features of one image.

        Yields:
            Name of an output and its size in bytes for one image.
        """
        for spec, shape in zip(self.outputs, 2 * self.shapes, strict=True):
            yield spec.name, _BYTES[self.dtype] * math.prod(shape)

    def of_batch(self, count: int) -> list[FeatureShape]:
        """Return the shapes of the features of a batch, as the launches of the kernels take them.

        Args:
            count: Number of images, N.

        Returns:
            Shape (N, C_k, H_k, W_k) of each scale k.
        """
        return [(count, *shape) for shape in self.shapes]
