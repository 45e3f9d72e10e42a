"""A graph without its head, for a library without plugins. The session then runs the CUDA kernels after the engine.

A record beside the graph keeps the attributes of the removed head and the sizes of its features. The record goes into
`engine.json`, which the session reads.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgead.errors import BackendError
from edgead.export.head.onnx_function import spec_of_node
from edgead.export.head.plugin_node import for_kernels
from edgead.runtime.tensorrt.feature_record import FeatureRecord

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def features_of(model: ModelProto) -> tuple[ModelProto, FeatureRecord]:
    """Remove the head of a graph.

    If some features are float16 and others float32, all are cast to float32, as for the plugin.

    Args:
        model: A graph that edgead exported. It is not changed.

    Returns:
        The graph that gives the features, and the record of the features and the head. The graph's outputs have the
        names in the record.

    Raises:
        BackendError: The graph does not have exactly one head, the head is beyond the limits of the kernels, the sizes
            of a feature are not fixed, or the features do not form pairs.
    """
    cut, head = for_kernels(model)
    # The size of an upsampling is computed in the graph, from the shape of its input.
    inferred = onnx.shape_inference.infer_shapes(cut, data_prop=True).graph
    values = {value.name: value for value in (*inferred.input, *inferred.value_info)}
    features = list(head.input)
    cut.graph.node.remove(head)
    shapes = [_shape(values[name]) for name in features]
    scales = len(features) // 2
    if shapes[:scales] != shapes[scales:]:
        raise BackendError(
            f"the head takes features of {shapes}, which are not pairs",
            hint="export the graph with 'edgead build'",
        )
    record = FeatureRecord(
        _DTYPES[values[features[0]].type.tensor_type.elem_type],
        tuple(shapes[:scales]),
        spec_of_node(head),
    )
    del cut.graph.output[:]
    for name, output in zip(features, record.outputs, strict=True):
        # An engine's outputs are found by name, so each feature gets the name in the record.
        cut.graph.node.append(helper.make_node("Identity", [name], [output.name], name=output.name))
        value = ValueInfoProto()
        value.CopyFrom(values[name])
        value.name = output.name
        cut.graph.output.append(value)
    return cut, record


def _shape(feature: ValueInfoProto) -> tuple[int, int, int]:
    """Channels, height and width of a feature."""
    lengths = [dimension.dim_value for dimension in feature.type.tensor_type.shape.dim]
    if len(lengths) != 4 or not all(lengths[1:]):
        raise BackendError(
            f"the feature {feature.name} has no fixed channels, height and width",
            hint="export the graph with 'edgead build'",
        )
    _, channels, height, width = lengths
    return channels, height, width
