"""A graph that computes the rounding error of every quantised layer alone.

It computes every quantised layer twice from the same float32 input: once exactly, and once with rounded input and
weights. The error of a layer therefore does not depend on the rounding of other layers.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper


def with_rounded_copies(exact: ModelProto, quantised: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
    """Add a rounded copy beside each layer of the float32 graph that is quantised, and the difference of both.

    Args:
        exact: The float32 graph. It is not changed.
        quantised: The same graph converted by `int8_from_float32`.

    Returns:
        The graph, and the quantised layers in its order, named by their output tensors. The tensor `NAME_error` is the
        rounded minus the exact output of the layer NAME. It is no output of the graph.
    """
    rounding = {
        node.output[0]: node
        for node in quantised.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    after = {node.output[0]: node for node in quantised.graph.node}
    known = {weight.name for weight in exact.graph.initializer}
    model = ModelProto()
    model.CopyFrom(exact)
    graph = model.graph
    del graph.node[:]
    graph.initializer.extend(weight for weight in quantised.graph.initializer if weight.name not in known)
    added: set[str] = set()
    layers: list[str] = []

    def add(name: str) -> None:
        """Add the rounding nodes that compute this tensor, unless they were added before."""
        node = rounding.get(name)
        if node is not None and name not in added:
            added.add(name)
            add(node.input[0])
            graph.node.append(node)

    for node in exact.graph.node:
        graph.node.append(node)
        name = node.output[0]
        rounded = after[name]
        if rounding.keys().isdisjoint(rounded.input):
            continue
        layers.append(name)
        for tensor in rounded.input:
            add(tensor)
        copy = NodeProto()
        copy.CopyFrom(rounded)
        copy.name, copy.output[0] = f"{name}_copy", f"{name}_copy"
        graph.node.append(copy)
        graph.node.append(helper.make_node("Sub", [f"{name}_copy", name], [f"{name}_error"]))
    return model, tuple(layers)
