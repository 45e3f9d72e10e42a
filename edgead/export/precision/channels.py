"""Channels of a graph that share one factor, and the factors that give the quantised tensors channels of equal range.

A convolution can compute any of its output channels times a positive number, and so can an instance normalisation. An
activation function without an upper bound, a pooling or an upsampling keeps the factor of a channel. An addition needs
the same factor on both sides, so a whole residual stream shares the factors of its channels. A convolution and a
multiplication by constants can undo the factors of their input. For any other operator they are undone before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto

from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.types import Float32Array

COMPUTES_FACTORS = (*CONVOLUTIONS, "InstanceNormalization")
"""Operators that compute each output channel with weights of its own, which are their second input."""

KEEPS_FACTORS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "Resize")
"""Operators that give a times f(x) for a times x, if a is positive. `Resize` interpolates, so it is one of them."""

STRENGTH = 0.75
"""Power of the ranges in the factors. With 1 all channels of a tensor get the same range, and a channel that is
small on the calibration images is clipped where a defect raises it. With less than 1 it keeps a reserve."""

SMALLEST = 1e-3
"""Smallest range that counts, as a share of the largest range of the tensor."""

Labels = npt.NDArray[np.int64]


def channel_scales(model: ModelProto, channel_maxima: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    """Choose the number that each channel is to be divided by.

    Args:
        model: A float32 graph that edgead exported.
        channel_maxima: Absolute maximum of each channel, (C,) float32, of each tensor that is quantised, by name.

    Returns:
        Numbers, (C,) float32, positive, of each tensor with channels to divide, by name.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    labels, count = _labels(model)
    largest = np.zeros(count, np.float32)
    for name, maxima in channel_maxima.items():
        if name in labels:
            floored = np.maximum(maxima, SMALLEST * maxima.max(initial=0.0))
            np.maximum.at(largest, labels[name], floored)
    scales = np.where(largest > 0.0, largest, 1.0) ** np.float32(STRENGTH)
    return {name: scales[label].astype(np.float32) for name, label in labels.items() if largest[label].any()}


def channel_factors(node: NodeProto, weights: Mapping[str, TensorProto]) -> int | None:
    """Find the constant by which a node multiplies the channels of a tensor (N, C, H, W).

    Args:
        node: Any node.
        weights: Constants of the graph by name.

    Returns:
        The position of the constant among the inputs, 0 or 1; None if the node does something else.
    """
    constants = [position for position, name in enumerate(node.input) if name in weights]
    if node.op_type != "Mul" or len(constants) != 1:
        return None
    dims = list(weights[node.input[constants[0]]].dims)
    is_one_per_channel = len(dims) <= 4 and dims[-2:] in ([], [1, 1]) and dims[:-3] in ([], [1])
    return constants[0] if is_one_per_channel else None


def output_channels(node: NodeProto, dims: Sequence[int]) -> int:
    """Return the number of output channels of a node.

    Args:
        node: One of `COMPUTES_FACTORS`.
        dims: Shape of its weights.
    """
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return dims[1] * groups if node.op_type == "ConvTranspose" else dims[0]


def _labels(model: ModelProto) -> tuple[dict[str, Labels], int]:
    """Label the channels of each tensor, one label for one factor; return the labels and their number."""
    sections = sections_of(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    labels: dict[str, Labels] = {}
    added: list[tuple[Labels, Labels]] = []
    count = 0
    for index in sorted(sections.teacher | sections.student):
        node = model.graph.node[index]
        name, known = node.output[0], [labels[name] for name in node.input if name in labels]
        if node.op_type in COMPUTES_FACTORS and node.input[1] in weights:
            channels = output_channels(node, weights[node.input[1]].dims)
            labels[name] = np.arange(count, count + channels)
            count += channels
        elif node.op_type in KEEPS_FACTORS and known:
            labels[name] = known[0]
        elif node.op_type == "Concat" and len(known) == len(node.input):
            labels[name] = np.concatenate(known)
        elif node.op_type == "Add" and len(known) == 2 and known[0].shape == known[1].shape:
            labels[name] = known[0]
            added.append((known[0], known[1]))
    shared = _lowest_labels(count, added)
    return {name: shared[label] for name, label in labels.items()}, count


def _lowest_labels(count: int, added: Sequence[tuple[Labels, Labels]]) -> Labels:
    """Find for each of the labels 0 to count - 1 the lowest label that additions connect it to."""
    lowest = np.arange(count)
    before = None
    while before is None or (lowest != before).any():
        before = lowest.copy()
        for first, second in added:
            low = np.minimum(lowest[first], lowest[second])
            lowest[first] = lowest[second] = low
        lowest = lowest[lowest]
    return lowest
