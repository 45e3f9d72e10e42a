"""A graph without the model-local function: the form of `model.onnx`, and the form that a builder of engines takes.

Few runtimes support functions. OpenVINO and OpenCV refuse them, and the parser of TensorRT for RTX crashes the process
if a node resolves to a plugin instead. After inlining, the head consists of standard operators.
"""

from __future__ import annotations

import onnx
from onnx import FunctionProto, ModelProto, NodeProto

from edgead.export.head.onnx_function import DOMAIN, OP_TYPE


def without_head_function(model: ModelProto) -> ModelProto:
    """Replace the node of the head by the nodes of its function.

    The constants of the function become initializers, one for each use, because OpenCV 4 refuses a constant that two
    products share.

    Args:
        model: A graph that edgead exported. It is not changed. If its head has no function, because it is prepared for
            the plugin, the node stays.

    Returns:
        The checked graph. Its inputs and outputs keep their names.
    """
    inlined = ModelProto()
    inlined.CopyFrom(model)
    bodies = [f for f in model.functions if (f.domain, f.name) == (DOMAIN, OP_TYPE)]
    if bodies:
        del inlined.graph.node[:]
        for node in model.graph.node:
            if (node.domain, node.op_type) == (DOMAIN, OP_TYPE):
                _inline(inlined, node, bodies[0])
            else:
                inlined.graph.node.append(node)
        others = [f for f in model.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE)]
        del inlined.functions[:]
        inlined.functions.extend(others)
    if all(node.domain != DOMAIN for node in inlined.graph.node):
        kept = [opset for opset in inlined.opset_import if opset.domain != DOMAIN]
        del inlined.opset_import[:]
        inlined.opset_import.extend(kept)
    onnx.checker.check_model(inlined, full_check=True)
    return inlined


def _inline(model: ModelProto, head: NodeProto, body: FunctionProto) -> None:
    """Append the nodes of the body to a graph, with the names of the head's inputs and outputs."""
    outside = dict(zip((*body.input, *body.output), (*head.input, *head.output), strict=True))
    constants = {node.output[0]: node.attribute[0].t for node in body.node if node.op_type == "Constant"}
    uses = dict.fromkeys(constants, 0)
    for node in body.node:
        if node.op_type == "Constant":
            continue
        copy = model.graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{head.name}/{node.output[0]}"
        for index, name in enumerate(node.input):
            copy.input[index] = outside.get(name, f"{head.name}/{name}")
            if name in constants:
                copy.input[index] += f"_{uses[name]}"
                uses[name] += 1
                weight = model.graph.initializer.add()
                weight.CopyFrom(constants[name])
                weight.name = copy.input[index]
        for index, name in enumerate(node.output):
            copy.output[index] = outside.get(name, f"{head.name}/{name}")
