"""Harm of each layer in INT8, and the layers that stay in float because of it.

The sensitive layers differ between networks and parts, so they are measured instead of chosen by a rule. The harm of a
layer is the squared error of the anomaly maps if only this layer is quantised. Two graphs measure it without a session
for each layer: one computes the rounding error of every layer in one pass (`rounded_copies`), the other is the float32
graph, to whose layers one of these errors at a time is added. The errors of layers are nearly independent, so the harm
of several layers is about the sum.

Layers stay in float, those with the most harm for their work first, until the expected error of the maps is below a
target or `LARGEST_SHARE` of the multiplications is in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgead.export.cost import multiply_adds
from edgead.export.graph_sections import multiplied_scales
from edgead.export.precision.rounded_copies import with_rounded_copies
from edgead.runtime.agreement import root
from edgead.runtime.onnxruntime import tensor_function
from edgead.types import Float32Array, Float64Array, UInt8Array

TARGET = 0.002
"""Expected root mean square of the map errors, as a share of the root mean square of the maps, that is small enough."""

FASTER_TARGET = 0.01
"""The same for the faster INT8 that `--precision auto` tries on OpenVINO (benchmarks/results/openvino.md)."""

LARGEST_SHARE = 0.35
"""Largest share of the multiplications of a graph that may stay in float for their harm."""

LEAST_SHARE = 0.005
"""Share that each layer costs at least. An addition multiplies nothing, but its tensors have to be converted."""

IMAGES = 4
"""Largest number of calibration images that harm is measured on."""

SENSITIVE_SHARE = 0.9
"""Share of the harm of the quantised layers that the sensitive ones cause together."""


def measured_harm(exact: ModelProto, quantised: ModelProto, images: UInt8Array) -> dict[str, float]:
    """Measure the harm of each layer: the squared error of the maps if this layer alone is quantised.

    Each image counts alike: its mean squared error is divided by the mean square of its map. Maps that multiply K
    scales are compared by their roots of degree K.

    Args:
        exact: The float32 graph.
        quantised: The same graph converted by `int8_from_float32`, with bias corrections.
        images: Calibration images, (N, H, W, 3) uint8 RGB, N >= 1. At most `IMAGES` of them, spread evenly, are used.

    Returns:
        Harm, the mean over the images, by layer in the order of the graph; each is named by its output tensor.

    Raises:
        PrecisionError: The graph does not have exactly one head.
        BackendError: ONNX Runtime cannot run the graph.
    """
    copies, layers = with_rounded_copies(exact, quantised)
    errors = [f"{layer}_error" for layer in layers]
    copies.graph.output.extend(ValueInfoProto(name=name) for name in errors)
    errors_of = tensor_function(copies.SerializeToString(), errors)
    map_of = tensor_function(_with_added_errors(exact, layers).SerializeToString(), ["anomaly_map"])
    factors = multiplied_scales(exact)
    none = {name: np.zeros((1, 1, 1, 1), np.float32) for name in errors}
    harm = dict.fromkeys(layers, 0.0)
    spread = images[:: -(-len(images) // IMAGES)]
    for image in spread:
        found = errors_of({"images": image[None]})
        inputs = {"images": image[None], **none}
        without = _map(map_of, inputs, factors)
        square = max(float(np.square(without).mean()), np.finfo(np.float32).tiny)
        for layer, name in zip(layers, errors, strict=True):
            difference = _map(map_of, {**inputs, name: found[name]}, factors) - without
            harm[layer] += float(np.square(difference).mean()) / square / len(spread)
    return harm


def float_layers(model: ModelProto, harm: Mapping[str, float], target: float = TARGET) -> tuple[str, ...]:
    """Choose the layers that stay in float.

    Args:
        model: The float32 graph.
        harm: Harm of each layer, from `measured_harm`.
        target: Expected error of the maps that is small enough, in the units of `TARGET`.

    Returns:
        The layers, the most harmful for their work first.

    Raises:
        EdgeadError: The operations of the graph cannot be counted.
    """
    counts = multiply_adds(model)
    total = sum(counts.values())
    cost = {layer: max(counts.get(layer, 0) / total, LEAST_SHARE) for layer in harm}
    chosen: list[str] = []
    share, expected = LARGEST_SHARE, sum(harm.values())
    for layer in sorted(harm, key=lambda layer: -harm[layer] / cost[layer]):
        if expected > target**2 and cost[layer] <= share:
            chosen.append(layer)
            share -= cost[layer]
            expected -= harm[layer]
    return tuple(chosen)


def fewest(harm: Mapping[str, float], share: float) -> tuple[str, ...]:
    """Find the fewest names that cause a share of the total harm.

    Args:
        harm: Harm of each name, at least 0.
        share: Share of the sum of all harm, 0 to 1.

    Returns:
        The names, the most harmful first; none if the sum is 0.
    """
    chosen: list[str] = []
    left = share * sum(harm.values())
    for name in sorted(harm, key=lambda name: -harm[name]):
        if left <= 0.0:
            break
        chosen.append(name)
        left -= harm[name]
    return tuple(chosen)


def _with_added_errors(exact: ModelProto, layers: tuple[str, ...]) -> ModelProto:
    """Add an input `NAME_error`, (1, C, H, W) or (1, 1, 1, 1), to each layer's output."""
    model = ModelProto()
    model.CopyFrom(exact)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        name = node.output[0]
        if name in layers:
            model.graph.node[-1].output[0] = f"{name}_exact"
            model.graph.node.append(helper.make_node("Add", [f"{name}_exact", f"{name}_error"], [name]))
            shape = [1, f"{name}_c", f"{name}_h", f"{name}_w"]
            model.graph.input.append(helper.make_tensor_value_info(f"{name}_error", TensorProto.FLOAT, shape))
    return model


def _map(
    map_of: Callable[[dict[str, Float32Array | UInt8Array]], dict[str, Float32Array]],
    inputs: dict[str, Float32Array | UInt8Array],
    factors: int,
) -> Float64Array:
    """Compute the root of the anomaly map."""
    return root(map_of(inputs)["anomaly_map"].astype(np.float64), factors)
