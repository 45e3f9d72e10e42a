"""The anomaly-map operator as ONNX: a node of domain `edgead`, and its arithmetic as a model-local function.

ONNX Runtime runs the function. A builder that has a kernel for `edgead::AnomalyMap` drops the function and keeps the
node. Resizing and smoothing are linear, so the function contains them as matrices. It needs no Resize node, no 33-tap
convolution and no padding. Corner cases of Resize differ between runtimes. For `add`, one matrix for each scale and
axis does both. For `multiply`, the product of the scales comes between them, so smoothing has its own matrices.

The attributes of the node define the operator. The matrices are computed from the attributes and the feature sizes of
one model, so a function serves that model only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgead.imaging.anomaly_map import EPSILON, bilinear_matrix, gaussian_matrix
from edgead.types import Float64Array, HeadSpec

DOMAIN = "edgead"
OP_TYPE = "AnomalyMap"
VERSION = 1
OPSET = 18

FeatureShape: TypeAlias = tuple[int, int, int]


def head_function(spec: HeadSpec, shapes: Sequence[FeatureShape]) -> FunctionProto:
    """Write the operator as an ONNX function of opset 18 operators.

    The function takes teacher_1..K and then student_1..K, each (N, C_k, H_k, W_k) float16 or float32. It gives
    `anomaly_map` (N, 1, H, W) and `anomaly_score` (N,), both float32.

    Args:
        spec: Parameters of the operator, including the size (H, W) of the map in pixels.
        shapes: (C_k, H_k, W_k) of each scale k, equal for teacher and student; at least one.

    Returns:
        The function.

    Raises:
        ValueError: There are no shapes, or the weights are of another number of scales.
    """
    if not shapes:
        raise ValueError("the anomaly map needs features of at least one scale")
    body = _Body()
    inputs = _input_names(len(shapes))
    pairs = zip(inputs[: len(shapes)], inputs[len(shapes) :], shapes, strict=True)
    cosine_maps = [_cosine_map(body, teacher, student, shape) for teacher, student, shape in pairs]
    fuse = _fused_by_adding if spec.fusion == "add" else _fused_by_multiplying
    body.add("Identity", fuse(body, cosine_maps, shapes, spec), output="anomaly_map")
    # GlobalMaxPool instead of ReduceMax: in opset 18 the parser of TensorRT 8.6 ignores the axes of ReduceMax, so the
    # maximum would include the batch axis.
    body.add(
        "Squeeze",
        body.add("GlobalMaxPool", "anomaly_map"),
        body.constant([1, 2, 3], np.int64),
        output="anomaly_score",
    )
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        inputs=inputs,
        outputs=["anomaly_map", "anomaly_score"],
        nodes=body.nodes,
        opset_imports=[helper.make_opsetid("", OPSET)],
        attributes=list(_attributes(spec)),
    )


def append_head(features: ModelProto, spec: HeadSpec) -> ModelProto:
    """Append the operator to a graph of features.

    Args:
        features: A graph with 2 K outputs of any names, teacher_1..K and then student_1..K, each (N, C_k, H_k, W_k)
            with fixed C_k, H_k and W_k. It is not changed.
        spec: Parameters of the operator.

    Returns:
        The graph with the outputs `anomaly_map` and `anomaly_score`. Its batch dimension keeps the name that it has in
        the features.

    Raises:
        ValueError: The outputs are not such pairs.
    """
    outputs = list(features.graph.output)
    count = len(outputs) // 2
    shapes = [_feature_shape(output) for output in outputs]
    if count == 0 or shapes[:count] != shapes[count:]:
        raise ValueError(f"teacher and student features do not come in pairs of one shape: {shapes}")
    batch = outputs[0].type.tensor_type.shape.dim[0]
    batch_size: str | int = batch.dim_param or batch.dim_value
    map_shape = [batch_size, 1, spec.height, spec.width]

    model = ModelProto()
    model.CopyFrom(features)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, map_shape))
    model.graph.output.append(helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, [batch_size]))
    model.graph.node.append(
        helper.make_node(
            OP_TYPE,
            [output.name for output in outputs],
            ["anomaly_map", "anomaly_score"],
            name="anomaly_map_head",
            domain=DOMAIN,
            **_attributes(spec),
        )
    )
    model.functions.append(head_function(spec, shapes[:count]))
    model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    return model


class _Body:
    """Nodes of the function, in order. Each method returns the name of the value that it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def between(self, left: Any, value: str, right: Any) -> str:
        """Add `left` @ value @ `right`^T for constant matrices, over the last two axes."""
        return self.add(
            "MatMul", self.add("MatMul", self.constant(left), value), self.constant(np.transpose(right))
        )


def _cosine_map(body: _Body, teacher: str, student: str, shape: FeatureShape) -> str:
    """1 - <t, s> / (max(|t|, eps) max(|s|, eps)), always in float32, because squares would overflow float16."""
    channels, height, width = shape
    # The sum over channels is a product with a row of ones. ONNX Runtime multiplies matrices on all cores, but sums
    # over an axis other than the last on one core, which is eighteen times slower (WideResNet50-2 at 256: 24 ms
    # against 1.3 ms).
    ones = body.constant(np.ones((1, channels)))
    flat = body.constant([0, channels, height * width], np.int64)
    epsilon = body.constant(EPSILON)
    t, s = (
        body.add("Reshape", body.add("Cast", name, to=TensorProto.FLOAT), flat) for name in (teacher, student)
    )
    dot, t_square, s_square = (
        body.add("MatMul", ones, body.add("Mul", a, b)) for a, b in ((t, s), (t, t), (s, s))
    )
    t_norm, s_norm = (body.add("Max", body.add("Sqrt", square), epsilon) for square in (t_square, s_square))
    cosine = body.add("Div", dot, body.add("Mul", t_norm, s_norm))
    distance = body.add("Sub", body.constant(1.0), cosine)
    return body.add("Reshape", distance, body.constant([0, 1, height, width], np.int64))


def _fused_by_adding(
    body: _Body, cosine_maps: Sequence[str], shapes: Sequence[FeatureShape], spec: HeadSpec
) -> str:
    """sum_k (G B_k) M_k (G' B'_k)^T. Smoothing is linear, so each scale is smoothed before the sum."""
    down, across = gaussian_matrix(spec.height, spec.sigma), gaussian_matrix(spec.width, spec.sigma)
    smoothed = [
        body.between(down @ rows, cosine_map, across @ columns)
        for cosine_map, (rows, columns) in zip(cosine_maps, _resizing(shapes, spec), strict=True)
    ]
    return body.add("Sum", *smoothed)


def _fused_by_multiplying(
    body: _Body, cosine_maps: Sequence[str], shapes: Sequence[FeatureShape], spec: HeadSpec
) -> str:
    """G (prod_k B_k M_k B'_k^T) G'^T. A product is not linear in each map, so it is smoothed afterwards."""
    product, *others = (
        body.between(rows, cosine_map, columns)
        for cosine_map, (rows, columns) in zip(cosine_maps, _resizing(shapes, spec), strict=True)
    )
    for other in others:
        product = body.add("Mul", product, other)
    if spec.sigma == 0.0:
        return product
    return body.between(
        gaussian_matrix(spec.height, spec.sigma), product, gaussian_matrix(spec.width, spec.sigma)
    )


def _resizing(shapes: Sequence[FeatureShape], spec: HeadSpec) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Resizing matrices B_k (H, H_k) and B'_k (W, W_k) of each scale, the first one times the scale's weight."""
    for (_, height, width), weight in zip(shapes, spec.weights_of(len(shapes)), strict=True):
        yield (
            weight * bilinear_matrix(spec.height, height, spec.align_corners),
            bilinear_matrix(spec.width, width, spec.align_corners),
        )


def _attributes(spec: HeadSpec) -> dict[str, Any]:
    """Return the attributes of the node. Without weights it has no attribute `weights`, as for the plugin."""
    values = {name: int(value) if isinstance(value, bool) else value for name, value in asdict(spec).items()}
    if not spec.weights:
        del values["weights"]
    return values


def spec_of_node(node: NodeProto) -> HeadSpec:
    """Read the attributes of a node of the operator.

    Args:
        node: A node that `append_head` wrote.

    Returns:
        The operator's parameters.
    """
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return HeadSpec(
        int(values["height"]),
        int(values["width"]),
        values["fusion"].decode(),
        float(values["sigma"]),
        bool(values["align_corners"]),
        tuple(values.get("weights", ())),
    )


def _input_names(count: int) -> list[str]:
    return [f"{role}_{k}" for role in ("teacher", "student") for k in range(1, count + 1)]


def _feature_shape(output: ValueInfoProto) -> FeatureShape:
    """Channels, height and width of a feature; ValueError if they are not fixed."""
    dimensions = output.type.tensor_type.shape.dim
    if len(dimensions) != 4 or not all(dimension.dim_value for dimension in list(dimensions)[1:]):
        raise ValueError(f"feature {output.name} is not (N, C, H, W) with fixed C, H and W")
    _, channels, height, width = (dimension.dim_value for dimension in dimensions)
    return channels, height, width
