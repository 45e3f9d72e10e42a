"""The head as a plugin node: its attributes, and the rest of the graph."""

from __future__ import annotations

import re
from dataclasses import asdict

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from edgead.errors import BackendError
from edgead.export.head.inline import without_head_function
from edgead.export.head.onnx_function import append_head
from edgead.export.head.plugin_node import plugin_head
from edgead.types import HeadSpec

SPEC = HeadSpec(64, 48, "multiply", 2.5, False, (0.5, 2.0))
SHAPES = ((8, 16, 12), (16, 8, 6))


def graph(
    spec: HeadSpec = SPEC,
    shapes: tuple[tuple[int, int, int], ...] = SHAPES,
    halves: tuple[str, ...] = (),
) -> ModelProto:
    """A graph of Relu features and the exported head; inputs named in `halves` are float16."""
    names = [f"{role}{k}" for role in ("teacher", "student") for k in range(len(shapes))]
    values = [
        [
            helper.make_tensor_value_info(
                name + suffix, TensorProto.FLOAT16 if name in halves else TensorProto.FLOAT, ["N", *shape]
            )
            for name, shape in zip(names, [*shapes, *shapes], strict=True)
        ]
        for suffix in ("", "_features")
    ]
    nodes = [helper.make_node("Relu", [name], [f"{name}_features"]) for name in names]
    model = helper.make_model(
        helper.make_graph(nodes, "features", *values),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return append_head(model, spec)


def test_the_node_names_the_plugin_and_keeps_its_attributes():
    standard = graph()
    model = plugin_head(standard)
    onnx.checker.check_model(model)
    assert not model.functions
    (head,) = [node for node in model.graph.node if node.op_type == "AnomalyMap"]
    attributes = {a.name: helper.get_attribute_value(a) for a in head.attribute}
    assert attributes.pop("plugin_version") == b"1"
    assert attributes.pop("plugin_namespace") == b"edgead"
    # A parser passes 32-bit integers and floats to the plugin unchanged.
    assert attributes == {**asdict(SPEC), "fusion": b"multiply", "align_corners": 0, "weights": [0.5, 2.0]}
    (plain,) = plugin_head(graph(HeadSpec(64, 48))).graph.node[-1:]
    # The parser would warn of an attribute that is not there.
    assert [list(a.floats) for a in plain.attribute if a.name == "weights"] == [[1.0, 1.0]]
    assert list(head.input) == list(standard.graph.node[-1].input)
    assert [value.name for value in model.graph.output] == ["anomaly_map", "anomaly_score"]


def test_the_graph_that_was_given_keeps_its_function():
    standard = graph()
    before = standard.SerializeToString(deterministic=True)
    plugin_head(standard)
    assert standard.SerializeToString(deterministic=True) == before


def test_inlining_leaves_the_plugin_alone():
    model = plugin_head(graph())
    assert without_head_function(model) == model


def test_other_functions_stay():
    model = graph()
    other = helper.make_function(
        "other",
        "Twice",
        ["x"],
        ["y"],
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 18)],
    )
    model.functions.append(other)
    assert [function.name for function in plugin_head(model).functions] == ["Twice"]


def test_a_graph_without_a_head_is_refused():
    model = graph()
    del model.graph.node[-1]
    with pytest.raises(BackendError, match="edgead::AnomalyMap"):
        plugin_head(model)


def test_more_scales_than_the_kernels_take_are_refused():
    with pytest.raises(BackendError) as refusal:
        plugin_head(graph(HeadSpec(64, 48), shapes=((4, 4, 4),) * 5))
    assert {"4", "5"} <= set(re.findall(r"\d+", refusal.value.what))
    assert "--head standard" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("name", "largest", "beyond"), [("height", 16384, 16385), ("width", 16384, 16385), ("sigma", 32.0, 33.0)]
)
def test_attributes_beyond_the_kernels_are_refused(name, largest, beyond):
    # Only the node is changed, because a function of such a size would hold gigabytes.
    model = graph()
    (attribute,) = [a for a in model.graph.node[-1].attribute if a.name == name]
    attribute.CopyFrom(helper.make_attribute(name, largest))
    plugin_head(model)
    attribute.CopyFrom(helper.make_attribute(name, beyond))
    with pytest.raises(BackendError) as refusal:
        plugin_head(model)
    assert all(value in refusal.value.what for value in (name, str(largest), str(beyond)))


def features_of(model: ModelProto) -> list[int]:
    """Element types of the head's inputs."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    return [types[name] for name in inferred.node[-1].input]


@pytest.mark.parametrize("halves", [(), ("teacher0", "teacher1", "student0", "student1")])
def test_features_of_one_type_stay_as_they_are(halves):
    standard = graph(halves=halves)
    model = plugin_head(standard)
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in standard.graph.node]
    assert features_of(model) == [TensorProto.FLOAT16 if halves else TensorProto.FLOAT] * 4


def test_mixed_features_are_widened_and_mean_the_same():
    standard = graph(halves=("teacher1", "student0"))
    model = plugin_head(standard)
    onnx.checker.check_model(model)
    assert features_of(model) == [TensorProto.FLOAT] * 4

    # With the function back in place of the plugin, ONNX Runtime can run it.
    model.functions.extend(standard.functions)
    del model.graph.node[-1].attribute[-2:]
    rng = np.random.default_rng(0)
    feed = {
        value.name: rng.standard_normal((2, *shape)).astype(
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value, shape in zip(standard.graph.input, [*SHAPES, *SHAPES], strict=True)
    }
    expected, actual = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, feed
        )
        for m in (standard, model)
    )
    for want, got in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(got, want)


def test_features_of_another_type_are_refused():
    model = graph()
    model.graph.node[0].CopyFrom(
        helper.make_node("Cast", ["teacher0"], ["teacher0_features"], to=TensorProto.DOUBLE)
    )
    with pytest.raises(BackendError, match="float16"):
        plugin_head(model)
