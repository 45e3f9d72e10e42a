"""A graph that ends where the head begins, for a library that takes no plugins: the kernels follow the engine then.

What is cut off, the attributes of the head's node and the sizes of what it took, is recorded beside the graph, for
`engine.json` and the session that reads it.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgead.errors import BackendError
from edgead.export.head.plugin_node import for_kernels
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.types import HeadSpec

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def features_of(model: ModelProto) -> tuple[ModelProto, FeatureRecord]:
    """Cut the head off a graph: another model, whose outputs are those of the record, and the record.

    Features of both types are widened to float32, as for the plugin. Raises BackendError for a graph without exactly
    one head, a head beyond what the kernels take, and features whose sizes are not fixed.
    """
    cut, head = for_kernels(model)
    inferred = onnx.shape_inference.infer_shapes(cut).graph
    values = {value.name: value for value in (*inferred.input, *inferred.value_info)}
    features, attributes = list(head.input), {a.name: helper.get_attribute_value(a) for a in head.attribute}
    cut.graph.node.remove(head)
    shapes = [_shape(values[name]) for name in features]
    scales = len(features) // 2
    if shapes[:scales] != shapes[scales:]:
        raise BackendError(
            f"the head takes features of {shapes}, which are no pairs: export the graph with 'edgead build'"
        )
    record = FeatureRecord(
        _DTYPES[values[features[0]].type.tensor_type.elem_type],
        tuple(shapes[:scales]),
        HeadSpec(
            int(attributes["height"]),
            int(attributes["width"]),
            attributes["fusion"].decode(),
            float(attributes["sigma"]),
            bool(attributes["align_corners"]),
        ),
    )
    del cut.graph.output[:]
    for name, output in zip(features, record.outputs, strict=True):
        # Under a name of its own: an engine's outputs are found by name.
        cut.graph.node.append(helper.make_node("Identity", [name], [output.name], name=output.name))
        value = ValueInfoProto()
        value.CopyFrom(values[name])
        value.name = output.name
        cut.graph.output.append(value)
    return cut, record


def _shape(feature: ValueInfoProto) -> tuple[int, int, int]:
    lengths = [dimension.dim_value for dimension in feature.type.tensor_type.shape.dim]
    if len(lengths) != 4 or not all(lengths[1:]):
        raise BackendError(
            f"the feature {feature.name} has no fixed channels, height and width: export the graph with 'edgead build'"
        )
    _, channels, height, width = lengths
    return channels, height, width
