"""Channels of a graph that share one factor, and the factors that give the quantised tensors channels of equal range.

A convolution can compute any of its output channels times a positive number. An activation function without an upper
bound, a pooling or an upsampling keeps the factor of a channel. An addition needs the same factor on both sides, so a
whole residual stream shares the factors of its channels. Any other operator needs its channels as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.types import BoolArray, Float32Array

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
        Numbers, (C,) float32, positive, of each tensor with channels to divide, by name. A tensor with other readers
        than convolutions, the head and operators that keep a factor is left out.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    labels, fixed = _labels(model)
    largest = np.zeros(len(fixed), np.float32)
    for name, maxima in channel_maxima.items():
        if name in labels:
            floored = np.maximum(maxima, SMALLEST * maxima.max(initial=0.0))
            np.maximum.at(largest, labels[name], floored)
    scales = np.where(largest > 0.0, largest, 1.0) ** np.float32(STRENGTH)
    return {
        name: scales[label].astype(np.float32)
        for name, label in labels.items()
        if not fixed[label].any() and largest[label].any()
    }


def output_channels(node: NodeProto, dims: Sequence[int]) -> int:
    """Return the number of output channels of a convolution.

    Args:
        node: `Conv` or `ConvTranspose`.
        dims: Shape of its weights.
    """
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return dims[0] if node.op_type == "Conv" else dims[1] * groups


def _labels(model: ModelProto) -> tuple[dict[str, Labels], BoolArray]:
    """Label the channels of each tensor, one label for one factor, and find the labels whose factor must stay 1."""
    sections = sections_of(model)
    weights = {weight.name: weight for weight in model.graph.initializer}
    labels: dict[str, Labels] = {}
    kept: list[Labels] = []
    added: list[tuple[Labels, Labels]] = []
    count = 0
    for index in sorted(sections.teacher | sections.student):
        node = model.graph.node[index]
        name, known = node.output[0], [labels[name] for name in node.input if name in labels]
        if node.op_type in CONVOLUTIONS and node.input[1] in weights:
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
        elif node.op_type != "Shape":
            kept.extend(known)
    shared = _lowest_labels(count, added)
    labels = {name: shared[label] for name, label in labels.items()}
    fixed = np.zeros(count, np.bool_)
    for label in kept:
        fixed[shared[label]] = True
    # A tensor has one INT8 scale, so a channel that keeps its range keeps the whole tensor.
    while mixed := [label for label in labels.values() if fixed[label].any() and not fixed[label].all()]:
        for label in mixed:
            fixed[label] = True
    return labels, fixed


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
