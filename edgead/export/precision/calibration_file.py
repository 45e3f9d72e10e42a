"""The cache file of a calibration.

It holds the results and a key: the SHA-256 of everything that determines them. A cache with another key is stale. It is
refused, and neither used nor overwritten, because it may belong to another bundle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from edgead.errors import PrecisionError
from edgead.export.precision.calibration import SCHEMA, Calibration
from edgead.export.precision.quantize import layers_to_quantise, tensors_to_quantise
from edgead.files.atomic import replace_file
from edgead.files.parsing import RecordError, check_object, parse_json, read_bounded
from edgead.files.records import record_errors, record_from
from edgead.types import Float32Array

MAX_CACHE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class _Cache:
    """Content of a cache file; see `Calibration` for the fields."""

    schema: int
    key: str
    algorithm: str
    images: int
    channel_maxima: Mapping[str, tuple[float, ...]]
    clipping_limits: Mapping[str, float]
    bias_corrections: Mapping[str, tuple[float, ...]]
    harm: Mapping[str, float]


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
            _channel_maxima(cache.channel_maxima, model),
            _clipping_limits(cache.clipping_limits, model),
            _arrays(cache.bias_corrections, _layer_channels(model), "bias corrections"),
            _harm(cache.harm, model),
        )


def _clipping_limits(found: Mapping[str, float], model: ModelProto) -> dict[str, float]:
    """Check clipping limits from a cache against the graph, and sort them by the order of the graph."""
    tensors = tensors_to_quantise(model)
    if found.keys() != set(tensors) or not all(limit >= 0.0 for limit in found.values()):
        raise RecordError("its clipping limits are not those of the graph")
    return {name: found[name] for name in tensors}


def _harm(found: Mapping[str, float], model: ModelProto) -> dict[str, float]:
    """Check the harm of layers from a cache against the graph, and sort it by the order of the graph."""
    layers = layers_to_quantise(model)
    if found.keys() != set(layers) or not all(0.0 <= harm < math.inf for harm in found.values()):
        raise RecordError("its harm is not of the layers of the graph")
    return {name: found[name] for name in layers}


def _channel_maxima(found: Mapping[str, Sequence[float]], model: ModelProto) -> dict[str, Float32Array]:
    """Check channel maxima from a cache against the graph, and convert them to float32."""
    arrays = _arrays(found, _tensor_channels(model), "channel maxima")
    if any((array < 0.0).any() for array in arrays.values()):
        raise RecordError("its channel maxima are negative")
    return arrays


def _arrays(
    found: Mapping[str, Sequence[float]], channels: Mapping[str, int], what: str
) -> dict[str, Float32Array]:
    """Convert numbers of channels from a cache to float32, and check them against the graph."""
    # A number too large for float32 becomes infinite, which is refused below.
    with np.errstate(over="ignore"):
        arrays = {name: np.asarray(numbers, np.float32) for name, numbers in found.items()}
    if {name: array.shape for name, array in arrays.items()} != {
        n: (count,) for n, count in channels.items()
    }:
        raise RecordError(f"its {what} are not those of the graph")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise RecordError(f"its {what} are not finite")
    return arrays


def _tensor_channels(model: ModelProto) -> dict[str, int]:
    """Number of channels of each tensor that can be quantised, by name."""
    tensors = set(tensors_to_quantise(model))
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output)
    return {
        value.name: value.type.tensor_type.shape.dim[1].dim_value for value in values if value.name in tensors
    }


def _layer_channels(model: ModelProto) -> dict[str, int]:
    """Number of output channels of each convolution that can be quantised, by the name of its output tensor."""
    layers = set(layers_to_quantise(model))
    weights = {weight.name: weight for weight in model.graph.initializer}
    return {
        node.output[0]: weights[node.input[1]].dims[0]
        for node in model.graph.node
        if node.op_type == "Conv" and node.output[0] in layers
    }
