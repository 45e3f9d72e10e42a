"""What `engine.json` says of an engine that ends in features: their type and sizes, and the head to put behind them.

TensorRT for RTX takes no plugins, so there the kernels are launched by the session, and it has to be told what the
node of the graph said. The numbers reach addresses on the GPU, so they are read as strictly as the rest of the record,
and what the engine says of its outputs has to agree with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from edgead.plugin.launches import MAX_SCALES, FeatureShape
from edgead.types import HeadSpec, TensorSpec

_BYTES = {"float32": 4, "float16": 2}
_MAX_LENGTH = 2**16


@dataclass(frozen=True, slots=True)
class FeatureRecord:
    """The outputs of an engine of features, and the operator that takes them.

    dtype: of all features, float32 or float16. shapes: (C_k, H_k, W_k) of scale k, the same for teacher and student.
    head: the operator's attributes.
    """

    dtype: str
    shapes: tuple[tuple[int, int, int], ...]
    head: HeadSpec

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, types and shapes: teacher_features_1..K, then student_features_1..K, each (N, C_k, H_k, W_k)."""
        return tuple(
            TensorSpec(f"{side}_features_{k}", self.dtype, (None, *shape))
            for side in ("teacher", "student")
            for k, shape in enumerate(self.shapes, start=1)
        )

    def bytes_of_picture(self) -> Iterator[tuple[str, int]]:
        """Each output's name and its bytes for one picture."""
        for spec, shape in zip(self.outputs, 2 * self.shapes, strict=True):
            yield spec.name, _BYTES[self.dtype] * math.prod(shape)

    def of_batch(self, count: int) -> list[FeatureShape]:
        """The shapes for so many pictures, (N, C_k, H_k, W_k), as the kernels' launches take them."""
        return [(count, *shape) for shape in self.shapes]

    @classmethod
    def from_json(cls, content: Any) -> FeatureRecord:
        """Read the object that `dataclasses.asdict` gives; ValueError, naming the key, for any other."""
        _check_keys(content, cls, "features")
        if content["dtype"] not in tuple(_BYTES):
            raise ValueError(f"'dtype' is {str(content['dtype'])[:80]!r}, not {' or '.join(_BYTES)}")
        shapes = content["shapes"]
        if (
            not isinstance(shapes, list)
            or not 1 <= len(shapes) <= MAX_SCALES
            or not all(map(_is_shape, shapes))
        ):
            raise ValueError(f"'shapes' is no list of 1 to {MAX_SCALES} shapes [C, H, W]")
        return cls(content["dtype"], tuple((c, h, w) for c, h, w in shapes), _head(content["head"]))


def _head(content: Any) -> HeadSpec:
    _check_keys(content, HeadSpec, "head")
    for key, kinds in (
        ("height", (int,)),
        ("width", (int,)),
        ("sigma", (int, float)),
        ("align_corners", (bool,)),
    ):
        # The exact type: in Python true is an int too.
        if type(content[key]) not in kinds:
            raise ValueError(f"{key!r} of the head is {str(content[key])[:80]!r}")
    if max(content["height"], content["width"]) > _MAX_LENGTH or not abs(content["sigma"]) <= _MAX_LENGTH:
        raise ValueError("'height', 'width' or 'sigma' of the head is out of range")
    return HeadSpec(**content)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(length) is int and 1 <= length <= _MAX_LENGTH for length in value)
    )


def _check_keys(content: Any, kind: type[Any], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where!r} is {type(content).__name__}, not an object")
    for key in sorted(content.keys() ^ {entry.name for entry in fields(kind)}):
        raise ValueError(f"the key {key[:80]!r} of {where!r} is unknown or missing")
