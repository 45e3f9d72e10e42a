"""What `engine.json` says of an engine that ends in features: their type and sizes, and the head to put behind them.

TensorRT for RTX takes no plugins, so there the kernels are launched by the session, and it needs to know what the
node of the graph said. The numbers reach addresses on the GPU, so they are read as strictly as the rest of the record,
and what the engine says of its outputs has to agree with them.
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

    dtype: of all features, float32 or float16. shapes: (C_k, H_k, W_k) of scale k, the same for teacher and student.
    head: the operator's attributes. Raises ValueError, naming the field, for a value out of range.
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

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes: teacher_features_1..K, then student_features_1..K, each (N, C_k, H_k, W_k)."""
        return tuple(
            TensorSpec(f"{side}_features_{k}", self.dtype, (None, *shape))
            for side in ("teacher", "student")
            for k, shape in enumerate(self.shapes, start=1)
        )

    def bytes_of_image(self) -> Iterator[tuple[str, int]]:
        """Each output's name and its bytes for one image."""
        for spec, shape in zip(self.outputs, 2 * self.shapes, strict=True):
            yield spec.name, _BYTES[self.dtype] * math.prod(shape)

    def of_batch(self, count: int) -> list[FeatureShape]:
        """The shapes for so many images, (N, C_k, H_k, W_k), as the kernels' launches take them."""
        return [(count, *shape) for shape in self.shapes]
