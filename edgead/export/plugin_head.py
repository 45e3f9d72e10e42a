"""The head as a node for TensorRT's plugin registry, where it was a function that any runtime can inline.

TensorRT's ONNX parser looks at the name of a node before anything else: a name that a function of the graph bears
is inlined, a name that nobody knows is looked up among the plugins. So the function goes, and the node says by
two attributes which plugin it means. The parser of TensorRT 8.6 and 10 reads `plugin_version` and
`plugin_namespace` and ignores the node's domain (onnx-tensorrt, FallbackPluginImporter); newer ones try the domain
as the namespace too, which is the same.

What comes out is no graph for ONNX Runtime any more, and never what a bundle holds: it lives as long as the
building of an engine takes.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from edgead.errors import BackendError
from edgead.export.head import DOMAIN, OP_TYPE, VERSION

# What edgead/plugin/anomaly_map.h holds the kernels to.
MAX_SCALES = 4
MAX_SIZE = 16384
MAX_SIGMA = 32.0


def plugin_head(model: ModelProto) -> ModelProto:
    """Let the head of a graph be the plugin: another model, without the function, whose node names the plugin.

    Raises BackendError for a graph without exactly one head, and for a head beyond what the kernels take.
    """
    plugin = ModelProto()
    plugin.CopyFrom(model)
    heads = [node for node in plugin.graph.node if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]
    if len(heads) != 1:
        raise BackendError(
            f"the graph has {len(heads)} nodes {DOMAIN}::{OP_TYPE} where it should have one: "
            "export it with 'edgead build'"
        )
    _check(heads[0])
    heads[0].attribute.append(helper.make_attribute("plugin_version", str(VERSION)))
    heads[0].attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
    others = [f for f in plugin.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE)]
    del plugin.functions[:]
    plugin.functions.extend(others)
    return plugin


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
                f"the plugin's kernels take a {what} of {limit} at most, not {value}: use the standard head"
            )
