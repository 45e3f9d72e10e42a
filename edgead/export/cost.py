"""What one image costs a graph: parameters and floating-point operations, counted from the ONNX file alone.

So the figures are of what runs at the line, with batch normalisation folded and without what only training needs, and
whoever has a bundle can count them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto, helper

from edgead.errors import BundleError
from edgead.export.head.inline import without_head_function

# Whose constants were learnt; the constants of the head, in its function, were not.
_LEARNT = ("Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization", "InstanceNormalization", "PRelu")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters: numbers that were learnt. flop: floating-point operations for one image."""

    parameters: int
    flop: int


def cost_of(model: ModelProto) -> Cost:
    """Count a graph whose first axis is the batch, for a batch of one.

    parameters: elements of the constants that convolutions, matrix products and normalisations take. flop: 2 for each
    multiply-add of the convolutions (transposed ones too) and matrix products, those of the head among them; a padded
    position counts as any other. Bias, activation, normalisation and resizing are left out, as is usual. Raises
    BundleError where such a node has a shape that cannot be inferred.
    """
    shapes = _shapes(inlined := _for_one_image(without_head_function(model)))
    flop = 0
    for node in inlined.graph.node:
        if node.op_type in _MULTIPLY_ADDS:
            try:
                flop += 2 * _MULTIPLY_ADDS[node.op_type](node, shapes)
            except KeyError as error:
                raise BundleError(
                    f"the {node.op_type} {node.name or node.output[0]!r} has no fixed shape, so its operations cannot "
                    "be counted: rebuild the graph with 'edgead build'"
                ) from error
    return Cost(_parameters(model), flop)


def _parameters(model: ModelProto) -> int:
    constants = {weight.name: prod(weight.dims) for weight in model.graph.initializer}
    # An INT8 weight reaches its layer by way of a node that widens it.
    widened = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    taken = {
        widened.get(name, name) for node in model.graph.node if node.op_type in _LEARNT for name in node.input
    }
    # A set, because a weight that two layers share was learnt once.
    return sum(constants.get(name, 0) for name in taken)


def _for_one_image(model: ModelProto) -> ModelProto:
    """The same graph with a batch of one, and without the shapes that were noted for another."""
    one = ModelProto()
    one.CopyFrom(model)
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in one.graph.output:
        value.type.tensor_type.ClearField("shape")
    del one.graph.value_info[:]
    return one


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """The shape of every tensor whose shape is fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, Shape] = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            found[value.name] = tuple(d.dim_value for d in dimensions)
    return found


def _convolution(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    # Every output is a sum over the input channels of its group and the kernel.
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _transposed_convolution(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    # Every input is spread over the output channels of its group and the kernel.
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _matrix_product(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if attributes.get("transA") else 1]


_MULTIPLY_ADDS: dict[str, Callable[[NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "Gemm": _gemm,
}
