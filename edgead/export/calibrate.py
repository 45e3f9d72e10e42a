"""Calibration: which range each tensor of a graph takes on given pictures, and the file that remembers it.

The pictures go through the float32 graph twice, once for the largest magnitude of each tensor and once for the
histograms that end there; two passes are exact where widening a histogram on the way is not. No torch.

A cache holds the ranges under a key: the SHA-256 of everything that they follow from. A cache with another key
is stale and refused, never quietly used or overwritten: it may belong to another bundle.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto

from edgead.atomic import replace_file, write_errors
from edgead.errors import PrecisionError
from edgead.export.ranges import Algorithm, magnitude_histogram, range_from_histogram
from edgead.preprocess import ModelSize, preprocess_spec
from edgead.runtime.onnxruntime import tensor_values
from edgead.types import Float32Array, Float64Array, UInt8Array

SCHEMA = 1
MAX_CACHE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Calibration:
    """Ranges of tensors and what they follow from.

    key: of `calibration_key`. algorithm: one of `ALGORITHMS`. pictures: how many. ranges: by tensor.
    """

    key: str
    algorithm: str
    pictures: int
    ranges: Mapping[str, float]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The text of the cache file."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


def calibration_key(model: ModelProto, images: UInt8Array, algorithm: Algorithm) -> str:
    """SHA-256, in hex, of what ranges follow from: graph, preprocessing, pictures, algorithm, schema.

    images: (N, H, W, 3) uint8 RGB. The pictures count with their pixels and their order.
    """
    what = {
        "schema": SCHEMA,
        "graph": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "preprocess": preprocess_spec(ModelSize(*images.shape[1:3])),
        "pictures": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        "algorithm": algorithm,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def tensor_peaks(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> dict[str, float]:
    """Give the largest magnitude of each tensor on these pictures; infinite where one is not finite.

    images: (N, H, W, 3) uint8 RGB, N >= 1. tensors: names of float32 tensors of the graph. Raises
    BackendError when the graph does not run.
    """
    peaks = dict.fromkeys(tensors, 0.0)
    for values in _runs(model, images, tensors):
        for name, value in values.items():
            peak = float(np.abs(value).max(initial=0.0))
            peaks[name] = max(peaks[name], peak) if math.isfinite(peak) else math.inf
    return peaks


def calibrate(
    model: ModelProto, images: UInt8Array, tensors: Sequence[str], algorithm: Algorithm
) -> Calibration:
    """Run pictures through a float32 graph and choose the range of each tensor.

    images: (N, H, W, 3) uint8 RGB, N >= 1. tensors: names of float32 tensors of the graph. algorithm: see
    `edgead.export.ranges`. Raises PrecisionError, naming the tensor, when values are not finite, BackendError
    when the graph does not run.
    """
    peaks = tensor_peaks(model, images, tensors)
    for name, peak in peaks.items():
        if not math.isfinite(peak):
            raise PrecisionError(
                f"tensor {name!r} takes values that are not finite: the weights are broken, train the run again"
            )
    if algorithm == "minmax":
        ranges = peaks
    else:
        counts: dict[str, Float64Array] = {}
        for values in _runs(model, images, tensors):
            for name, value in values.items():
                counts[name] = counts.get(name, 0.0) + magnitude_histogram(value, peaks[name])
        ranges = {name: range_from_histogram(counts[name], peaks[name], algorithm) for name in tensors}
    return Calibration(calibration_key(model, images, algorithm), algorithm, len(images), ranges)


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Write a cache, whole or not at all; EdgeadError when it cannot be written."""
    with replace_file(file) as partial:
        partial.write_text(calibration.to_json(), encoding="utf-8")


def read_calibration(file: Path, key: str, tensors: Sequence[str]) -> Calibration | None:
    """Read a cache, None where there is none.

    key: what the cache must be of. tensors: those it must hold a range of, and no other. Raises PrecisionError,
    one line, for a cache of another key or schema, and for a file that is none.
    """
    if not file.exists():
        return None
    mend = "delete it to calibrate again, or give another --cache"
    with write_errors(file), open(file, "rb") as opened:
        content = opened.read(MAX_CACHE_BYTES + 1)
    try:
        if len(content) > MAX_CACHE_BYTES:
            raise ValueError(f"it is larger than {MAX_CACHE_BYTES} bytes")
        value = json.loads(content)
        schema, found = value["schema"], value["key"]
        if schema == SCHEMA and found == key:
            ranges = {str(name): float(value["ranges"][name]) for name in tensors}
            if len(value["ranges"]) != len(ranges) or not all(0.0 <= r < math.inf for r in ranges.values()):
                raise ValueError("its ranges are not those of the graph")
            return Calibration(key, str(value["algorithm"]), int(value["pictures"]), ranges)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PrecisionError(f"{file} is no calibration cache ({error}): {mend}") from error
    what = f"schema {schema!r}, not {SCHEMA}" if schema != SCHEMA else "another graph, pictures or algorithm"
    raise PrecisionError(f"the calibration cache {file} is stale, it is of {what}: {mend}")


def _runs(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> Iterator[dict[str, Float32Array]]:
    """The values of tensors for one picture after the other."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in outputs)
    return tensor_values(tapped.SerializeToString(), images, tensors)
