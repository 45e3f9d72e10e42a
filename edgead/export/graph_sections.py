"""Which nodes of a graph prepare the image, and which are teacher, student and head.

Precision is chosen by part, and a graph says of itself what its parts are: the head is the one node of domain
`edgead`, its first inputs come from the teacher and its last from the student, and what no convolution comes
before prepares the image. So a graph that was read from a bundle is divided as one that was just exported,
without torch and without names to go by.
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
    """The nodes of a graph by part, as indices into its list of nodes; no node is in two parts.

    image: casts and normalises. teacher, student: from the first convolution on; nodes that both need are
    the teacher's. head: the anomaly map.
    """

    image: frozenset[int]
    teacher: frozenset[int]
    student: frozenset[int]
    head: int


def sections_of(model: ModelProto) -> GraphSections:
    """Divide a graph that edgead exported. Raises PrecisionError for one without exactly one head."""
    nodes = list(model.graph.node)
    heads = [index for index, node in enumerate(nodes) if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise PrecisionError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one: "
            "export it with 'edgead build'"
        )
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    features = list(nodes[heads[0]].input)
    teacher = _upstream(nodes, producer, features[: len(features) // 2])
    both = teacher | _upstream(nodes, producer, features[len(features) // 2 :])
    convolved: set[int] = set()
    for index, node in enumerate(nodes):
        # Nodes are in topological order, so what comes before a node is decided before it is.
        if node.op_type in CONVOLUTIONS or any(producer.get(name) in convolved for name in node.input):
            convolved.add(index)
    return GraphSections(
        image=frozenset(both - convolved),
        teacher=frozenset(teacher & convolved),
        student=frozenset((both - teacher) & convolved),
        head=heads[0],
    )


def float_tensors(model: ModelProto) -> frozenset[str]:
    """Names of all float32 tensors of the main graph, the weights among them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    return frozenset(floats | weights)


def computed_tensors(model: ModelProto) -> tuple[str, ...]:
    """Names of the float32 tensors that teacher and student give, in the order of the graph."""
    sections, floats = sections_of(model), float_tensors(model)
    nodes = enumerate(model.graph.node)
    inside = (node for index, node in nodes if index in sections.teacher | sections.student)
    return tuple(name for node in inside for name in node.output if name in floats)


def with_followers(model: ModelProto, layers: Collection[str]) -> frozenset[str]:
    """These layers and the nodes without weights, such as rectifiers, that take what they give and nothing else.

    layers, and what is returned: nodes by the first tensor that each gives.
    """
    constants = {weight.name for weight in model.graph.initializer}
    found = set(layers)
    for node in model.graph.node:
        taken = {name for name in node.input if name and name not in constants}
        if node.op_type in FOLLOWERS and taken <= found:
            found.add(node.output[0])
    return frozenset(found)


def tail(model: ModelProto) -> frozenset[str]:
    """The nodes that give the features: the last convolution of each, and all after it, by the first tensor given."""
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
