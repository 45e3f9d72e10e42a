"""Calibration for INT8: channel maxima, clipping limits, bias corrections and harm, measured on images.

The float32 graph runs on the images to find the absolute maximum of each channel, with which it is equalised. The
equalised graph runs twice more: to find the absolute maximum of each tensor, and to fill histograms that end there. Two
passes are exact; widening a histogram during one pass is not. A last pass measures how far rounding with these clipping
limits shifts the output of each convolution. At the end the harm of each layer is measured on some of the images. Torch
is not needed.

A student can answer one unusual image with activations that are a hundred times as large as on the others. In sums over
all images this image would decide alone, and the others would be rounded to a few levels. Each image therefore counts
by its relative error: with `mse` its histogram is divided by the sum of its squares, and the shifts have the median
over images. `entropy` and `percentile` count values, so such an image weighs no more than any other there.

A cache file holds the results and a key: the SHA-256 of everything that determines them. A cache with another key is
stale. It is refused, and neither used nor overwritten, because it may belong to another bundle.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, ValueInfoProto

from edgead.errors import PrecisionError
from edgead.export.precision.bias_correction import measured_bias_corrections
from edgead.export.precision.clipping import Algorithm, clipping_limit_from_histogram, magnitude_histogram
from edgead.export.precision.equalize import equalised
from edgead.export.precision.quantize import int8_from_float32, tensors_to_quantise
from edgead.export.precision.sensitivity import measured_harm
from edgead.files.parsing import json_text
from edgead.imaging.preprocess import ModelSize, preprocess_spec
from edgead.runtime.onnxruntime import tensor_values
from edgead.types import Float32Array, Float64Array, UInt8Array

SCHEMA = 8


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements that the conversion of one graph to INT8 needs.

    Attributes:
        key: Key from `calibration_key`.
        algorithm: One of `ALGORITHMS`.
        images: Number of calibration images.
        channel_maxima: Absolute maximum of each channel, (C,) float32, of every tensor that can be quantised, by name,
            in the graph before it is equalised.
        clipping_limits: Clipping limit of each of these tensors in the equalised graph.
        bias_corrections: Bias correction (C,) float32 of every convolution of the equalised graph, by the name of its
            output tensor; see `edgead.export.precision.bias_correction`.
        harm: Harm of every layer of the equalised graph, by the name of its output tensor; see
            `edgead.export.precision.sensitivity`.
    """

    key: str
    algorithm: str
    images: int
    channel_maxima: Mapping[str, Float32Array]
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, Float32Array]
    harm: Mapping[str, float]

    def to_json(self) -> str:
        """Return the text of the cache file."""
        content = {
            "schema": SCHEMA,
            "key": self.key,
            "algorithm": self.algorithm,
            "images": self.images,
            "channel_maxima": _numbers(self.channel_maxima),
            "clipping_limits": dict(self.clipping_limits),
            "bias_corrections": _numbers(self.bias_corrections),
            "harm": dict(self.harm),
        }
        return json_text(content, indent=1)


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
    """Measure the ranges of a graph, choose the clipping limit of each tensor, and measure bias corrections and harm.

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
    channel_maxima = channel_maxima_of(model, images, tensors_to_quantise(model))
    for name, maxima in channel_maxima.items():
        if not np.isfinite(maxima).all():
            raise PrecisionError(
                f"tensor {name!r} has values that are not finite, so the weights are broken",
                hint="train the run again",
            )
    equal = equalised(model, channel_maxima)
    clipping_limits = _measured_limits(equal, images, algorithm)
    bias_corrections = measured_bias_corrections(equal, int8_from_float32(equal, clipping_limits), images)
    corrected = int8_from_float32(equal, clipping_limits, bias_corrections=bias_corrections)
    return Calibration(
        calibration_key(model, images, algorithm),
        algorithm,
        len(images),
        channel_maxima,
        clipping_limits,
        bias_corrections,
        measured_harm(equal, corrected, images),
    )


def channel_maxima_of(
    model: ModelProto, images: UInt8Array, tensors: Sequence[str]
) -> dict[str, Float32Array]:
    """Measure the absolute maximum of each channel of each tensor on some images.

    Args:
        model: The float32 graph.
        images: Images, (N, H, W, 3) uint8 RGB, N >= 1.
        tensors: Names of float32 tensors (N, C, H, W) of the graph.

    Returns:
        Absolute maxima, (C,) float32, by name of the tensor. NaN or infinite if a value is.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    found: dict[str, Float32Array] = {}
    for values in _runs(model, images, tensors):
        for name, value in values.items():
            maxima = np.abs(value).max(axis=(0, 2, 3))
            found[name] = np.maximum(found.get(name, maxima), maxima)
    return found


def _measured_limits(equal: ModelProto, images: UInt8Array, algorithm: Algorithm) -> dict[str, float]:
    """Choose the clipping limit of each tensor of an equalised graph."""
    tensors = tensors_to_quantise(equal)
    absolute_maxima = absolute_maxima_of(equal, images, tensors)
    if algorithm == "minmax":
        return absolute_maxima
    counts: dict[str, Float64Array] = {}
    for values in _runs(equal, images, tensors):
        for name, value in values.items():
            squares = float(np.square(value, dtype=np.float64).sum())
            if squares > 0.0:
                histogram = magnitude_histogram(value, absolute_maxima[name])
                # Only a squared error grows with the activations of its image. Shares of the values do not.
                weight = 1.0 / squares if algorithm == "mse" else 1.0
                counts[name] = counts.get(name, 0.0) + weight * histogram
    return {
        name: clipping_limit_from_histogram(counts[name], absolute_maxima[name], algorithm)
        if name in counts
        else absolute_maxima[name]
        for name in tensors
    }


def _numbers(arrays: Mapping[str, Float32Array]) -> dict[str, list[float]]:
    """Convert float32 arrays to numbers with the fewest digits from which the same float32 is read again."""
    return {name: [float(str(x)) for x in array] for name, array in arrays.items()}


def _runs(model: ModelProto, images: UInt8Array, tensors: Sequence[str]) -> Iterator[dict[str, Float32Array]]:
    """Yield the values of tensors, by name, for one image after the other."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in outputs)
    return tensor_values(tapped.SerializeToString(), images, tensors)
