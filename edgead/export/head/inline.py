"""A graph without the model-local function: the form that a builder of engines takes.

Not every parser knows functions, and that of TensorRT for RTX takes the process with it where a node resolves to a
plugin instead. After inlining there is nothing left to resolve: the head is the standard operators of its body.
"""

from __future__ import annotations

import onnx
import onnx.inliner
from onnx import ModelProto

from edgead.export.head.onnx_function import DOMAIN


def without_head_function(model: ModelProto) -> ModelProto:
    """Write the head's body in place of its node; returns another model, checked.

    The names of inputs and outputs stay. A node of the head that has no body, as a plugin wants it, is left alone.
    """
    inlined = onnx.inliner.inline_local_functions(model)
    if all(node.domain != DOMAIN for node in inlined.graph.node):
        kept = [opset for opset in inlined.opset_import if opset.domain != DOMAIN]
        del inlined.opset_import[:]
        inlined.opset_import.extend(kept)
    onnx.checker.check_model(inlined, full_check=True)
    return inlined
