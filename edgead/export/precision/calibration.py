"""Calibration: the clipping limits and bias corrections that INT8 needs, measured on images, and the file that
remembers them.

The images go through the float32 graph twice, once for the largest magnitude of each tensor and once for the
histograms that end there; two passes are exact where widening a histogram on the way is not. A third pass measures how
far rounding with these clipping limits shifts each convolution. No torch.

A cache holds all of it under a key: the SHA-256 of everything that they follow from. A cache with another key
is stale and refused, never quietly used or overwritten: it may belong to another bundle.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto

from edgead.errors import PrecisionError
from edgead.export.graph_sections import CONVOLUTIONS
from edgead.export.precision.bias_correction import measured_bias_corrections
from edgead.export.precision.clipping import Algorithm, clipping_limit_from_histogram, magnitude_histogram
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.files.atomic import replace_file
from edgead.files.parsing import RecordError, check_object, json_text, parse_json, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.imaging.preprocess import ModelSize, preprocess_spec
from edgead.runtime.onnxruntime import tensor_values
from edgead.types import Float32Array, Float64Array, UInt8Array

SCHEMA = 2
MAX_CACHE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Calibration:
    """What INT8 needs of a graph, and what it follows from.

    key: of `calibration_key`. algorithm: one of `ALGORITHMS`. images: how many. clipping_limits: of every tensor that
    can be quantised, by name. bias_corrections: (C,) float32 of every convolution, by the tensor it gives: see
    `edgead.export.precision.bias_correction`.
    """

    key: str
    algorithm: str
    images: int
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, Float32Array]

    def to_json(self) -> str:
        """The text of the cache file."""
        content = {
            "schema": SCHEMA,
            "key": self.key,
            "algorithm": self.algorithm,
            "images": self.images,
            "clipping_limits": dict(self.clipping_limits),
            # As few digits as give the same float32 again.
            "bias_corrections": {
                name: [float(str(x)) for x in shift] for name, shift in self.bias_corrections.items()
            },
        }
        return json_text(content, indent=1)


@dataclass(frozen=True, slots=True)
class _Cache:
    """The content of a cache file, see `Calibration`."""

    schema: int
    key: str
    algorithm: str
    images: int
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, tuple[float, ...]]


def calibration_key(model: ModelProto, images: UInt8Array, algorithm: Algorithm) -> str:
    """SHA-256, in hex, of what clipping limits follow from: graph, preprocessing, images, algorithm, schema.

    images: (N, H, W, 3) uint8 RGB. The images count with their pixels and their order.
    """
    what = {
        "schema": SCHEMA,
        "graph": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "preprocess": preprocess_spec(ModelSize(*images.shape[1:3])),
        "images": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        "algorithm": algorithm,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def absolute_maxima_of(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> dict[str, float]:
    """Give the largest magnitude of each tensor on these images; infinite where one is not finite.

    images: (N, H, W, 3) uint8 RGB, N >= 1. tensors: names of float32 tensors of the graph. Raises
    BackendError when the graph does not run.
    """
    absolute_maxima = dict.fromkeys(tensors, 0.0)
    for values in _runs(model, images, tensors):
        for name, value in values.items():
            peak = float(np.abs(value).max(initial=0.0))
            absolute_maxima[name] = max(absolute_maxima[name], peak) if math.isfinite(peak) else math.inf
    return absolute_maxima


def calibrate(model: ModelProto, images: UInt8Array, algorithm: Algorithm) -> Calibration:
    """Run images through a float32 graph; choose the clipping limit of each tensor, measure the bias correction of each
    convolution.

    images: (N, H, W, 3) uint8 RGB, N >= 1. algorithm: see `edgead.export.precision.clipping`. Raises PrecisionError,
    naming the tensor, when values are not finite, and for a graph without the head; BackendError when the graph does
    not run.
    """
    tensors = tensors_to_quantise(model)
    absolute_maxima = absolute_maxima_of(model, images, tensors)
    for name, peak in absolute_maxima.items():
        if not math.isfinite(peak):
            raise PrecisionError(
                f"tensor {name!r} takes values that are not finite: the weights are broken, train the run again"
            )
    if algorithm == "minmax":
        clipping_limits = absolute_maxima
    else:
        counts: dict[str, Float64Array] = {}
        for values in _runs(model, images, tensors):
            for name, value in values.items():
                counts[name] = counts.get(name, 0.0) + magnitude_histogram(value, absolute_maxima[name])
        clipping_limits = {
            name: clipping_limit_from_histogram(counts[name], absolute_maxima[name], algorithm)
            for name in tensors
        }
    bias_corrections = measured_bias_corrections(model, int8_from_float32(model, clipping_limits), images)
    return Calibration(
        calibration_key(model, images, algorithm), algorithm, len(images), clipping_limits, bias_corrections
    )


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Write a cache, whole or not at all; EdgeadError when it cannot be written."""
    with replace_file(file) as partial:
        partial.write_text(calibration.to_json(), encoding="utf-8")


def read_calibration(file: Path, key: str, model: ModelProto) -> Calibration | None:
    """Read a cache, None where there is none.

    key: what the cache must be of. model: the graph that it must fit. Raises PrecisionError, one line, for a cache of
    another key or schema, and for a file that is none.
    """
    if not file.exists():
        return None
    hint = "delete it to calibrate again, or give another file"
    with record_errors(PrecisionError, f"{file} is no calibration cache", hint):
        value = check_object(parse_json(read_bounded(file, MAX_CACHE_BYTES), MAX_CACHE_BYTES))
        schema = record_from(int, value.get("schema"), "schema")
        if schema != SCHEMA:
            raise PrecisionError(
                f"the calibration cache {file} is stale, it is of schema {schema}, not {SCHEMA}: {hint}"
            )
        if record_from(str, value.get("key"), "key") != key:
            raise PrecisionError(
                f"the calibration cache {file} is stale, it is of another graph, images or algorithm: {hint}"
            )
        cache = record_from(_Cache, value)
        return Calibration(
            key,
            cache.algorithm,
            cache.images,
            _clipping_limits(cache.clipping_limits, model),
            _bias_corrections(cache.bias_corrections, model),
        )


def _clipping_limits(found: Mapping[str, float], model: ModelProto) -> dict[str, float]:
    tensors = tensors_to_quantise(model)
    if found.keys() != set(tensors) or not all(limit >= 0.0 for limit in found.values()):
        raise RecordError("its clipping limits are not those of the graph")
    return {name: found[name] for name in tensors}


def _bias_corrections(found: Mapping[str, Sequence[float]], model: ModelProto) -> dict[str, Float32Array]:
    # A number too large for float32 becomes infinite, and is refused below.
    with np.errstate(over="ignore"):
        bias_corrections = {name: np.asarray(shift, np.float32) for name, shift in found.items()}
    if {name: shift.shape for name, shift in bias_corrections.items()} != _channels(model):
        raise RecordError("its shifts are not those of the graph")
    if not all(np.isfinite(shift).all() for shift in bias_corrections.values()):
        raise RecordError("its shifts are not finite")
    return bias_corrections


def _channels(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of the shift of each convolution that can be quantised."""
    layers = set(layers_to_quantise(model))
    weights = {weight.name: weight for weight in model.graph.initializer}
    channels: dict[str, tuple[int, ...]] = {}
    for node in model.graph.node:
        if node.op_type in CONVOLUTIONS and node.output[0] in layers:
            dims = weights[node.input[1]].dims
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            channels[node.output[0]] = (dims[0] if node.op_type == "Conv" else dims[1] * groups,)
    return channels


def _runs(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> Iterator[dict[str, Float32Array]]:
    """The values of tensors for one image after the other."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in outputs)
    return tensor_values(tapped.SerializeToString(), images, tensors)
