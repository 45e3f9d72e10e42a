"""The head as a node for TensorRT's plugin registry, where it was a function that any runtime can inline.

TensorRT's ONNX parser looks at the name of a node before anything else: a name that a function of the graph bears
is inlined, a name that nobody knows is looked up among the plugins. So the function goes, and the node says by
two attributes which plugin it means. The parser of TensorRT 8.6 and 10 reads `plugin_version` and
`plugin_namespace` and ignores the node's domain (onnx-tensorrt, FallbackPluginImporter); newer ones try the domain
as the namespace too, which is the same.

The function casts every feature by itself, so a graph in float16 may keep some of them in float32; the kernels take
features of one type. Where they are mixed, those in float16 are widened before the node.

What comes out is no graph for ONNX Runtime any more, and never what a bundle holds: it lives as long as the
building of an engine takes.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgead.errors import BackendError
from edgead.export.head.onnx_function import DOMAIN, OP_TYPE, VERSION
from edgead.plugin.launches import MAX_SCALES, MAX_SIGMA, MAX_SIZE


def plugin_head(model: ModelProto) -> ModelProto:
    """Let the head of a graph be the plugin: another model, without the function, whose node names the plugin.

    Raises BackendError for a graph without exactly one head, and for a head beyond what the kernels take.
    """
    plugin, head = for_kernels(model)
    head.attribute.append(helper.make_attribute("plugin_version", str(VERSION)))
    head.attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
    return plugin


def for_kernels(model: ModelProto) -> tuple[ModelProto, NodeProto]:
    """Give a graph whose head has no function and takes features of one type, and its node; raises as `plugin_head`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = copy.graph.node
    heads = [index for index, node in enumerate(nodes) if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise BackendError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one: "
            "export it with 'edgead build'"
        )
    head = nodes[heads[0]]
    _check(head)
    casts = _casts_of_mixed_features(copy, head)
    for cast in casts:
        nodes.insert(heads[0], cast)
    others = [f for f in copy.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE)]
    del copy.functions[:]
    copy.functions.extend(others)
    return copy, nodes[heads[0] + len(casts)]


def _casts_of_mixed_features(model: ModelProto, head: NodeProto) -> list[NodeProto]:
    """Let the head take float32 where its features are of both types; the nodes that it needs before it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)
    }
    features = {name: types.get(name, TensorProto.UNDEFINED) for name in head.input}
    if not set(features.values()) <= {TensorProto.FLOAT, TensorProto.FLOAT16}:
        raise BackendError(
            "the head's features are neither float32 nor float16: export the graph with 'edgead build'"
        )
    if len(set(features.values())) == 1:
        return []
    halves = [name for name, element in features.items() if element == TensorProto.FLOAT16]
    widened = {name: f"{name}_widened" for name in halves}
    for position, name in enumerate(head.input):
        head.input[position] = widened.get(name, name)
    return [
        helper.make_node("Cast", [name], [widened[name]], name=f"{name}_widen", to=TensorProto.FLOAT)
        for name in halves
    ]


def _check(head: NodeProto) -> None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in head.attribute}
    for what, value, limit in (
        ("number of scales", len(head.input) // 2, MAX_SCALES),
        ("map's height", attributes["height"], MAX_SIZE),
        ("map's width", attributes["width"], MAX_SIZE),
        ("sigma", attributes["sigma"], MAX_SIGMA),
    ):
        if value > limit:
            raise BackendError(
                f"the plugin's kernels take a {what} of {limit} at most, not {value}: build with --head standard"
            )
