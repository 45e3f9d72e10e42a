"""The head as a node for TensorRT's plugin registry, instead of a function that any runtime can inline.

TensorRT's ONNX parser inlines a node if the graph has a function of its name, and otherwise looks for an operator and
then for a plugin of that name. The function is therefore removed, and two attributes of the node name the plugin. The
parser of TensorRT 8.6 and 10 reads `plugin_version` and `plugin_namespace` and ignores the node's domain
(onnx-tensorrt, FallbackPluginImporter). Newer parsers also try the domain as the namespace, and both are equal here.

The function casts every feature by itself, so a float16 graph may keep some features in float32. The kernels need
features of one type. If the types are mixed, float16 features are cast to float32 before the node.

ONNX Runtime cannot run the result. It exists only while an engine is built, and no bundle contains it.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgead.errors import BackendError
from edgead.export.head.onnx_function import DOMAIN, OP_TYPE, VERSION
from edgead.plugin.launches import MAX_SCALES, MAX_SIGMA, MAX_SIZE


def plugin_head(model: ModelProto) -> ModelProto:
    """Replace the function of a graph's head by the plugin.

    Args:
        model: A graph that edgead exported. It is not changed.

    Returns:
        The graph without the function. The node of its head names the plugin.

    Raises:
        BackendError: The graph does not have exactly one head, the head is beyond the limits of the kernels, or a
            feature is neither float16 nor float32.
    """
    plugin, head = for_kernels(model)
    if not any(attribute.name == "weights" for attribute in head.attribute):
        # The parser warns of attributes of the plugin that the node does not have.
        head.attribute.append(helper.make_attribute("weights", [1.0] * (len(head.input) // 2)))
    head.attribute.append(helper.make_attribute("plugin_version", str(VERSION)))
    head.attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
    return plugin


def for_kernels(model: ModelProto) -> tuple[ModelProto, NodeProto]:
    """Remove the function of a graph's head, and cast its features to one type.

    Args:
        model: A graph that edgead exported. It is not changed.

    Returns:
        The graph without the function, and the node of its head.

    Raises:
        BackendError: See `plugin_head`.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = copy.graph.node
    heads = [index for index, node in enumerate(nodes) if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise BackendError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one",
            hint="export it with 'edgead build'",
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
    """Make the head take float32 if its features have both types; returns the casts to insert before it."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)
    }
    features = {name: types.get(name, TensorProto.UNDEFINED) for name in head.input}
    if not set(features.values()) <= {TensorProto.FLOAT, TensorProto.FLOAT16}:
        raise BackendError(
            "the head's features are neither float32 nor float16", hint="export the graph with 'edgead build'"
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
    """Raise BackendError if the head is beyond the limits of the kernels."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in head.attribute}
    for what, value, limit in (
        ("number of scales", len(head.input) // 2, MAX_SCALES),
        ("map's height", attributes["height"], MAX_SIZE),
        ("map's width", attributes["width"], MAX_SIZE),
        ("sigma", attributes["sigma"], MAX_SIGMA),
    ):
        if value > limit:
            raise BackendError(
                f"the plugin's kernels take a {what} of {limit} at most, not {value}",
                hint="build with --head standard",
            )
