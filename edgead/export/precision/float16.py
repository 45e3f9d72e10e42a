"""Conversion of a float32 graph to mixed float16: teacher and student in float16, except nodes with large values.

The tensors of the graph carry the precision, not a flag of a builder, so every runtime computes the same. The image is
cast and normalised in float32 and then cast to float16 once. The head takes float16 features and casts them to float32
itself, because their squares would overflow. A node with values outside the range of float16 stays in float32, with a
cast on either side.

The graph may hold Q/DQ pairs. Then all layers that are not INT8 become float16, and so do the pairs: each rounds a
float16 tensor, and its result is float16. A pair of float16 needs opset 19.

Torch is not needed, because a bundle's graph is converted on machines that never train.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgead.errors import PrecisionError
from edgead.export.graph_sections import GraphSections, float_tensors, sections_of
from edgead.types import Float32Array

HALF_MAX = 65504.0
"""Largest finite float16."""

HEADROOM = 4.0
"""Factor by which a value may exceed the absolute maximum of its tensor before it overflows."""

# Inputs that stay float32 for every type of the features: `roi` and `scales` of the ONNX operator Resize.
_ALWAYS_FLOAT = {"Resize": (1, 2)}
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")

QDQ_OPSET = 19
"""First opset of ONNX with Q/DQ pairs of float16."""


def float16_from_float32(
    model: ModelProto,
    absolute_maxima: Mapping[str, float] = MappingProxyType({}),
    layers: Collection[str] | None = None,
) -> ModelProto:
    """Convert a float32 graph to mixed float16. Weights are rounded to the nearest float16, as in NumPy.

    Args:
        model: A graph that edgead exported, in float32 or with Q/DQ pairs of float32. It is not changed.
        absolute_maxima: Absolute maxima of tensors, by name. A node stays in float32 if one of its inputs or outputs
            has an absolute maximum above `HALF_MAX / HEADROOM`, or one that is not finite.
        layers: Nodes to convert, each named by its first output tensor; None for all nodes of teacher and student, and
            for their Q/DQ pairs.

    Returns:
        The checked graph, of opset 19 or higher if it has Q/DQ pairs of float16.

    Raises:
        PrecisionError: Some weights are outside the range of float16 or not finite, and the message names them; or the
            graph does not have exactly one head.
    """
    sections = sections_of(model)
    floats = float_tensors(model)
    wide = {name for name, peak in absolute_maxima.items() if not peak <= HALF_MAX / HEADROOM}
    weights = {weight.name: weight for weight in model.graph.initializer if weight.name in floats}
    converter = _Converter(floats, weights)
    halved = _to_halve(model, sections, wide, layers)
    for index, node in enumerate(model.graph.node):
        if index == sections.head:
            converter.keep(node)
        elif index in halved or (
            node.op_type == "QuantizeLinear" and layers is None and converter.is_half(node.input[0])
        ):
            converter.halve(node)
        else:
            converter.widen(node)
    converter.refuse_overflow()
    converted = ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(converter.nodes)
    graph.initializer.extend(converter.weights(model))
    if layers is None and any(node.op_type == "QuantizeLinear" for node in graph.node):
        _raise_opset(converted)
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _to_halve(
    model: ModelProto, sections: GraphSections, wide: set[str], layers: Collection[str] | None
) -> set[int]:
    """Find the nodes to compute in float16, except QuantizeLinear, by index."""
    nodes = list(model.graph.node)
    wide = set(wide)
    for node in nodes:
        # The values of a Q/DQ pair are the values of its input.
        if node.op_type in _ROUNDING and node.input[0] in wide:
            wide.add(node.output[0])
    inside = sections.teacher | sections.student
    halved = {
        index
        for index in inside
        if not {*nodes[index].input, *nodes[index].output} & wide
        and (
            nodes[index].output[0] in layers if layers is not None else nodes[index].op_type not in _ROUNDING
        )
    }
    if layers is None:
        taken = {name for index in halved for name in nodes[index].input}
        halved |= {
            index
            for index, node in enumerate(nodes)
            if node.op_type == "DequantizeLinear" and node.output[0] in taken
        }
    return halved


def _raise_opset(model: ModelProto) -> None:
    """Raise the opset of a graph and its functions to the first one with Q/DQ pairs of float16.

    The other operators that edgead exports compute in it as in opset 18.
    """
    for owner in (model, *model.functions):
        for opset in owner.opset_import:
            if opset.domain == "":
                opset.version = max(opset.version, QDQ_OPSET)


class _Converter:
    """Converts the nodes of a graph in order, and tracks the type of every tensor that they give."""

    def __init__(self, floats: frozenset[str], weights: Mapping[str, TensorProto]) -> None:
        self.nodes: list[NodeProto] = []
        self._floats = floats
        self._float_weights = weights
        self._halved: set[str] = set()
        self._cast: dict[str, str] = {}
        self._half_weights: dict[str, TensorProto] = {}
        self._overflowing: list[str] = []

    def is_half(self, name: str) -> bool:
        """Whether a tensor is float16."""
        return name in self._halved

    def keep(self, node: NodeProto) -> None:
        """Add a node that takes both types."""
        self.nodes.append(node)

    def halve(self, node: NodeProto) -> None:
        """Add a node that computes in float16."""
        self._add(node, half=True)
        self._halved.update(name for name in node.output if name in self._floats)

    def widen(self, node: NodeProto) -> None:
        """Add a node that computes in float32."""
        self._add(node, half=False)

    def refuse_overflow(self) -> None:
        """Raise PrecisionError if weights do not fit into float16."""
        if self._overflowing:
            raise PrecisionError(
                f"weights that half precision cannot hold (finite, up to {HALF_MAX:g}): "
                f"{', '.join(self._overflowing[:5])}{' and others' if len(self._overflowing) > 5 else ''}",
                hint="build with --precision fp32, or train again with a lower learning rate",
            )

    def weights(self, model: ModelProto) -> Iterator[TensorProto]:
        """Yield the initialisers that the converted nodes use."""
        used = {name for node in self.nodes for name in node.input}
        for weight in (*model.graph.initializer, *self._half_weights.values()):
            if weight.name in used:
                yield weight

    def _add(self, node: NodeProto, half: bool) -> None:
        """Add a node whose float inputs are float16 or float32, with casts of the inputs that need one."""
        changed = NodeProto()
        changed.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name not in self._floats or position in _ALWAYS_FLOAT.get(node.op_type, ()):
                continue
            if half and name in self._float_weights:
                changed.input[position] = self._half_weight(name)
            elif half != (name in self._halved):
                changed.input[position] = self._converted(name, half)
        for attribute in changed.attribute:
            if (
                half
                and node.op_type == "Cast"
                and attribute.name == "to"
                and attribute.i == TensorProto.FLOAT
            ):
                attribute.i = TensorProto.FLOAT16
        self.nodes.append(changed)

    def _converted(self, name: str, half: bool) -> str:
        """Name of the tensor in the other type. The first call adds its cast."""
        if name not in self._cast:
            self._cast[name] = f"{name}_{'half' if half else 'float'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(
                helper.make_node("Cast", [name], [self._cast[name]], name=f"{self._cast[name]}_cast", to=to)
            )
        return self._cast[name]

    def _half_weight(self, name: str) -> str:
        """Name of the weights in float16. The first call rounds them."""
        half_name = f"{name}_half"
        if half_name not in self._half_weights:
            exact: Float32Array = numpy_helper.to_array(self._float_weights[name])
            with np.errstate(over="ignore"):
                rounded = exact.astype(np.float16)
            if not np.isfinite(rounded).all():
                self._overflowing.append(name)
            self._half_weights[half_name] = numpy_helper.from_array(rounded, half_name)
        return half_name
