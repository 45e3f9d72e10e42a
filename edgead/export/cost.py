"""Cost of a graph for one image: parameters and floating-point operations, counted from the ONNX file alone.

The figures therefore describe the deployed graph: batch normalisation is folded, and parts that only training needs are
absent. Anyone who has a bundle can count them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto, helper

from edgead.errors import BundleError, vendor_errors
from edgead.export.head.inline import without_head_function

# Constants of these operators were learnt. The head's function has the same operators, with constants that were not.
_LEARNT = ("Conv", "ConvTranspose", "MatMul", "Gemm", "BatchNormalization", "InstanceNormalization", "PRelu")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a graph.

    Attributes:
        parameters: Number of learnt parameters.
        flop: Number of floating-point operations for one image.
    """

    parameters: int
    flop: int


def cost_of(model: ModelProto) -> Cost:
    """Count parameters and operations of a graph for one image.

    Parameters are the elements of the constants of convolutions, matrix products and normalisations. Each multiply-add
    of a convolution, transposed convolution or matrix product counts as 2 operations, in the head too, and padded
    positions count as others. As is usual, biases, activations, normalisations and resizing are not counted.

    Args:
        model: The graph; the first axis of its input is the batch.

    Returns:
        The counts for a batch of one.

    Raises:
        BundleError: The shape of a counted node cannot be inferred.
        BackendError: The graph is not valid.
    """
    return Cost(_parameters(model), 2 * sum(multiply_adds(model).values()))


def multiply_adds(model: ModelProto) -> dict[str, int]:
    """Count the multiply-adds of each convolution and matrix product for one image, as `cost_of` does.

    Args:
        model: The graph; the first axis of its input is the batch.

    Returns:
        Counts by the name of the node's output tensor. The nodes of the head have names that the graph does not have.

    Raises:
        BundleError: The shape of a counted node cannot be inferred.
        BackendError: The graph is not valid.
    """
    with vendor_errors(
        "the operations of the graph cannot be counted", "rebuild the graph with 'edgead build'"
    ):
        shapes = _shapes(inlined := _for_one_image(without_head_function(model)))
    counts = {}
    for node in inlined.graph.node:
        if node.op_type in _MULTIPLY_ADDS:
            try:
                counts[node.output[0]] = _MULTIPLY_ADDS[node.op_type](node, shapes)
            except KeyError as error:
                raise BundleError(
                    f"the {node.op_type} {node.name or node.output[0]!r} has no fixed shape, so its operations cannot "
                    "be counted",
                    hint="rebuild the graph with 'edgead build'",
                ) from error
    return counts


def _parameters(model: ModelProto) -> int:
    """Number of elements of all learnt constants."""
    constants = {weight.name: prod(weight.dims) for weight in model.graph.initializer}
    # A DequantizeLinear node stands between an INT8 weight and its layer.
    widened = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    taken = {
        widened.get(name, name) for node in model.graph.node if node.op_type in _LEARNT for name in node.input
    }
    # `taken` is a set, so a weight that two layers share counts once.
    return sum(constants.get(name, 0) for name in taken)


def _for_one_image(model: ModelProto) -> ModelProto:
    """Copy a graph with a batch of one, without the inferred shapes, which may hold another batch size."""
    one = ModelProto()
    one.CopyFrom(model)
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in one.graph.output:
        value.type.tensor_type.ClearField("shape")
    del one.graph.value_info[:]
    return one


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Shape of every tensor that has a fixed shape, by name."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, Shape] = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            found[value.name] = tuple(d.dim_value for d in dimensions)
    return found


def _convolution(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-adds: each output element is a sum over the input channels of its group and the kernel."""
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _transposed_convolution(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-adds: each input element is spread over the output channels of its group and the kernel."""
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
