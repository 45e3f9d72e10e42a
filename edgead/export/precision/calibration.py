"""Calibration for INT8: clipping limits and bias corrections, measured on images, and their cache file.

The float32 graph runs on the images twice. The first pass finds the largest magnitude of each tensor, and the second
pass fills histograms that end there. Two passes are exact; widening a histogram during one pass is not. A third pass
measures how far rounding with these clipping limits shifts the output of each convolution. Torch is not needed.

A cache file holds the results and a key: the SHA-256 of everything that determines them. A cache with another key is
stale. It is refused, and neither used nor overwritten, because it may belong to another bundle.
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
from edgead.export.precision.bias_correction import measured_bias_corrections
from edgead.export.precision.clipping import Algorithm, clipping_limit_from_histogram, magnitude_histogram
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.files.atomic import replace_file
from edgead.files.parsing import RecordError, check_object, json_text, parse_json, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.imaging.preprocess import ModelSize, preprocess_spec
from edgead.runtime.onnxruntime import tensor_values
from edgead.types import Float32Array, Float64Array, UInt8Array

SCHEMA = 3
MAX_CACHE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements that the conversion of one graph to INT8 needs.

    Attributes:
        key: Key from `calibration_key`.
        algorithm: One of `ALGORITHMS`.
        images: Number of calibration images.
        clipping_limits: Clipping limit of every tensor that can be quantised, by name.
        bias_corrections: Bias correction (C,) float32 of every convolution, by the name of its output tensor; see
            `edgead.export.precision.bias_correction`.
    """

    key: str
    algorithm: str
    images: int
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, Float32Array]

    def to_json(self) -> str:
        """Return the text of the cache file."""
        content = {
            "schema": SCHEMA,
            "key": self.key,
            "algorithm": self.algorithm,
            "images": self.images,
            "clipping_limits": dict(self.clipping_limits),
            # The fewest digits from which the same float32 is read again.
            "bias_corrections": {
                name: [float(str(x)) for x in shift] for name, shift in self.bias_corrections.items()
            },
        }
        return json_text(content, indent=1)


@dataclass(frozen=True, slots=True)
class _Cache:
    """Content of a cache file; see `Calibration` for the fields."""

    schema: int
    key: str
    algorithm: str
    images: int
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, tuple[float, ...]]


def calibration_key(model: ModelProto, images: UInt8Array, algorithm: Algorithm) -> str:
    """Hash everything that determines a calibration: graph, preprocessing, images, algorithm and schema.

    Args:
        model: The float32 graph.
        images: Calibration images, (N, H, W, 3) uint8 RGB. Their pixels and their order determine the key.
        algorithm: Algorithm that chooses clipping limits.

    Returns:
        SHA-256 in hex.
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
    """Measure the absolute maximum of each tensor on some images.

    Args:
        model: The float32 graph.
        images: Images, (N, H, W, 3) uint8 RGB, N >= 1.
        tensors: Names of float32 tensors of the graph.

    Returns:
        The absolute maximum of each tensor, by name; infinite if a value is not finite.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    absolute_maxima = dict.fromkeys(tensors, 0.0)
    for values in _runs(model, images, tensors):
        for name, value in values.items():
            peak = float(np.abs(value).max(initial=0.0))
            absolute_maxima[name] = max(absolute_maxima[name], peak) if math.isfinite(peak) else math.inf
    return absolute_maxima


def calibrate(model: ModelProto, images: UInt8Array, algorithm: Algorithm) -> Calibration:
    """Choose the clipping limit of each tensor of a graph, and measure the bias correction of each convolution.

    Args:
        model: A float32 graph that edgead exported.
        images: Calibration images, (N, H, W, 3) uint8 RGB, N >= 1.
        algorithm: Algorithm that chooses clipping limits; see `edgead.export.precision.clipping`.

    Returns:
        The calibration, with its key.

    Raises:
        PrecisionError: A tensor has values that are not finite, and the message names it; or the graph does not have
            exactly one head.
        BackendError: ONNX Runtime cannot run the graph.
    """
    tensors = tensors_to_quantise(model)
    absolute_maxima = absolute_maxima_of(model, images, tensors)
    for name, peak in absolute_maxima.items():
        if not math.isfinite(peak):
            raise PrecisionError(
                f"tensor {name!r} has values that are not finite, so the weights are broken",
                hint="train the run again",
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
    """Write a cache file, whole or not at all.

    Args:
        file: Path of the cache file.
        calibration: The calibration.

    Raises:
        EdgeadError: The file cannot be written.
    """
    with replace_file(file) as partial:
        partial.write_text(calibration.to_json(), encoding="utf-8")


def read_calibration(file: Path, key: str, model: ModelProto) -> Calibration | None:
    """Read a cache file.

    Args:
        file: Path of the cache file.
        key: Expected key, from `calibration_key`.
        model: The float32 graph. The cache must have entries for its tensors and convolutions.

    Returns:
        The calibration; None if the file does not exist.

    Raises:
        PrecisionError: The cache has another key or schema, or the file is not a cache.
    """
    if not file.exists():
        return None
    hint = "delete it to calibrate again, or give another file"
    with record_errors(PrecisionError, f"{file} is not a calibration cache", hint):
        value = check_object(parse_json(read_bounded(file, MAX_CACHE_BYTES), MAX_CACHE_BYTES))
        schema = record_from(int, value.get("schema"), "schema")
        if schema != SCHEMA:
            raise PrecisionError(
                f"the calibration cache {file} is stale, it has schema {schema}, not {SCHEMA}", hint=hint
            )
        if record_from(str, value.get("key"), "key") != key:
            raise PrecisionError(
                f"the calibration cache {file} is stale, it was made from another graph, images or algorithm",
                hint=hint,
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
    """Check clipping limits from a cache against the graph, and sort them by the order of the graph."""
    tensors = tensors_to_quantise(model)
    if found.keys() != set(tensors) or not all(limit >= 0.0 for limit in found.values()):
        raise RecordError("its clipping limits are not those of the graph")
    return {name: found[name] for name in tensors}


def _bias_corrections(found: Mapping[str, Sequence[float]], model: ModelProto) -> dict[str, Float32Array]:
    """Convert bias corrections from a cache to float32, and check them against the graph."""
    # A number too large for float32 becomes infinite, which is refused below.
    with np.errstate(over="ignore"):
        bias_corrections = {name: np.asarray(shift, np.float32) for name, shift in found.items()}
    if {name: shift.shape for name, shift in bias_corrections.items()} != _channels(model):
        raise RecordError("its bias corrections are not those of the graph")
    if not all(np.isfinite(shift).all() for shift in bias_corrections.values()):
        raise RecordError("its bias corrections are not finite")
    return bias_corrections


def _channels(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of the bias correction of each convolution that can be quantised, by the name of its output tensor."""
    layers = set(layers_to_quantise(model))
    weights = {weight.name: weight for weight in model.graph.initializer}
    channels: dict[str, tuple[int, ...]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.output[0] in layers:
            channels[node.output[0]] = (weights[node.input[1]].dims[0],)
    return channels


def _runs(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> Iterator[dict[str, Float32Array]]:
    """Yield the values of tensors, by name, for one image after the other."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in outputs)
    return tensor_values(tapped.SerializeToString(), images, tensors)
