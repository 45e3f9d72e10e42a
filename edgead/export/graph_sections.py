"""Sections of a graph: image preparation, teacher, student and head.

Precision is chosen by section, and the structure of a graph determines its sections. The head is the only node of
domain `edgead`. The first half of its inputs comes from the teacher, and the second half from the student. Nodes that
do not depend on a convolution prepare the image. Neither torch nor names of nodes are needed, so a graph from a bundle
is divided in the same way as a newly exported one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from edgead.errors import PrecisionError
from edgead.export.head.onnx_function import DOMAIN, OP_TYPE

CONVOLUTIONS = ("Conv", "ConvTranspose")
FOLLOWERS = ("Relu", "LeakyRelu", "Clip", "HardSwish", "Sigmoid")


@dataclass(frozen=True, slots=True)
class GraphSections:
    """Nodes of a graph by section, as indices into its list of nodes. No node is in two sections.

    Attributes:
        image: Nodes that cast and normalise the image.
        teacher: Nodes of the teacher from its first convolution on, and nodes that teacher and student share.
        student: Nodes of the student from its first convolution on.
        head: Node of the anomaly map.
    """

    image: frozenset[int]
    teacher: frozenset[int]
    student: frozenset[int]
    head: int


def sections_of(model: ModelProto) -> GraphSections:
    """Divide a graph into sections.

    Args:
        model: A graph that edgead exported, in any precision.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    nodes = list(model.graph.node)
    heads = [index for index, node in enumerate(nodes) if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise PrecisionError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one",
            hint="export it with 'edgead build'",
        )
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    features = list(nodes[heads[0]].input)
    teacher = _upstream(nodes, producer, features[: len(features) // 2])
    both = teacher | _upstream(nodes, producer, features[len(features) // 2 :])
    convolved: set[int] = set()
    for index, node in enumerate(nodes):
        # Nodes are in topological order, so the loop has visited all producers of a node before the node.
        if node.op_type in CONVOLUTIONS or any(producer.get(name) in convolved for name in node.input):
            convolved.add(index)
    return GraphSections(
        image=frozenset(both - convolved),
        teacher=frozenset(teacher & convolved),
        student=frozenset((both - teacher) & convolved),
        head=heads[0],
    )


def multiplied_scales(model: ModelProto) -> int:
    """Count the scales that the head multiplies.

    Args:
        model: A graph that edgead exported, in any precision.

    Returns:
        The number of scales; 1 for a head that adds them.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    head = model.graph.node[sections_of(model).head]
    fusion = next(attribute.s for attribute in head.attribute if attribute.name == "fusion")
    return len(head.input) // 2 if fusion == b"multiply" else 1


def float_tensors(model: ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors of the main graph, including weights.

    Args:
        model: Any graph.
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    return frozenset(floats | weights)


def computed_tensors(model: ModelProto) -> tuple[str, ...]:
    """Return the names of the float32 tensors that the nodes of teacher and student give, in the order of the graph.

    Args:
        model: A graph that edgead exported.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    sections, floats = sections_of(model), float_tensors(model)
    nodes = enumerate(model.graph.node)
    inside = (node for index, node in nodes if index in sections.teacher | sections.student)
    return tuple(name for node in inside for name in node.output if name in floats)


def with_followers(model: ModelProto, layers: Collection[str]) -> frozenset[str]:
    """Add to some layers the following activation functions that depend on no other layer.

    Args:
        model: Any graph.
        layers: Nodes, each named by its first output tensor.

    Returns:
        The layers and the added nodes, each named by its first output tensor.
    """
    constants = {weight.name for weight in model.graph.initializer}
    found = set(layers)
    for node in model.graph.node:
        taken = {name for name in node.input if name and name not in constants}
        if node.op_type in FOLLOWERS and taken <= found:
            found.add(node.output[0])
    return frozenset(found)


def tail(model: ModelProto) -> frozenset[str]:
    """Find the last convolution of each feature, and all nodes between it and the head.

    Args:
        model: A graph that edgead exported.

    Returns:
        The nodes, each named by its first output tensor.

    Raises:
        PrecisionError: The graph does not have exactly one head.
    """
    sections, nodes = sections_of(model), list(model.graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    found: set[str] = set()
    waiting = list(nodes[sections.head].input)
    while waiting:
        index = producer.get(waiting.pop())
        if index is None or nodes[index].output[0] in found:
            continue
        found.add(nodes[index].output[0])
        if nodes[index].op_type not in CONVOLUTIONS:
            waiting.extend(nodes[index].input)
    return frozenset(found)


def _upstream(nodes: list[NodeProto], producer: dict[str, int], tensors: Iterable[str]) -> set[int]:
    """Indices of all nodes that these tensors depend on."""
    found: set[int] = set()
    waiting = list(tensors)
    while waiting:
        index = producer.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting.extend(nodes[index].input)
    return found
