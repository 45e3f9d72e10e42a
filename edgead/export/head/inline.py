"""A graph without the model-local function: the form that a builder of engines takes.

Not every parser supports functions. The parser of TensorRT for RTX crashes the process if a node resolves to a plugin
instead. After inlining, the head consists of standard operators, so no node needs to be resolved.
"""

from __future__ import annotations

import onnx
import onnx.inliner
from onnx import ModelProto

from edgead.export.head.onnx_function import DOMAIN


def without_head_function(model: ModelProto) -> ModelProto:
    """Replace the node of the head by the nodes of its function.

    Args:
        model: A graph that edgead exported. It is not changed. If its head has no function, because it is prepared for
            the plugin, the node stays.

    Returns:
        The checked graph. Its inputs and outputs keep their names.
    """
    inlined = onnx.inliner.inline_local_functions(model)
    if all(node.domain != DOMAIN for node in inlined.graph.node):
        kept = [opset for opset in inlined.opset_import if opset.domain != DOMAIN]
        del inlined.opset_import[:]
        inlined.opset_import.extend(kept)
    onnx.checker.check_model(inlined, full_check=True)
    return inlined
