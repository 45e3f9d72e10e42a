"""Mixed float16: NumPy's rounding of the weights, float32 for large values, and a graph that runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgead.errors import PrecisionError
from edgead.export.graph_sections import sections_of
from edgead.export.precision.float16 import float16_from_float32
from edgead.export.precision.quantize import int8_from_float32, tensors_to_quantise
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.toy_graph import HEIGHT, WIDTH, initialisers, toy_graph, toy_images, values_of


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_the_graph_is_divided_into_its_sections() -> None:
    model = toy_graph()
    sections = sections_of(model)
    names = [node.output[0] for node in model.graph.node]
    assert {names[i] for i in sections.image} == {"cast", "planes", "scaled", "normalised"}
    assert {names[i] for i in sections.teacher} == {"image", "conv_t", "teacher"}
    student = {"down", "embedding", "main", "sum", "residual", "up", "student"}
    assert {names[i] for i in sections.student} == student
    assert names[sections.head] == "anomaly_map"


def test_a_graph_from_elsewhere_is_refused() -> None:
    model = toy_graph()
    del model.graph.node[-1]
    with pytest.raises(PrecisionError, match="edgead::AnomalyMap"):
        float16_from_float32(model)


def test_teacher_and_student_are_half_and_the_image_is_cast_once() -> None:
    exact = toy_graph()
    half = float16_from_float32(exact)
    found = types(half)
    for name in ("cast", "planes", "scaled", "normalised", "anomaly_map", "anomaly_score"):
        assert found[name] == TensorProto.FLOAT, name
    for name in (
        "normalised_half",
        "image",
        "conv_t",
        "teacher",
        "embedding",
        "main",
        "sum",
        "up",
        "student",
    ):
        assert found[name] == TensorProto.FLOAT16, name
    assert [node.op_type for node in half.graph.node].count("Cast") == 2
    head = half.graph.node[-1]
    assert (head.domain, head.op_type, list(head.input)) == ("edgead", "AnomalyMap", ["teacher", "student"])
    assert half.functions == exact.functions
    onnx.checker.check_model(half, full_check=True)


def test_a_cast_to_float_within_becomes_one_to_half() -> None:
    model = toy_graph()
    for node in model.graph.node:
        if node.op_type == "ConvTranspose":
            node.input[0] = "cast_within"
            model.graph.node.append(
                helper.make_node("Cast", ["residual"], ["cast_within"], to=TensorProto.FLOAT)
            )
    nodes = list(model.graph.node)
    nodes.insert([node.op_type for node in nodes].index("ConvTranspose"), nodes.pop())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert types(float16_from_float32(model))["cast_within"] == TensorProto.FLOAT16


def test_weights_are_rounded_as_numpy_rounds_and_the_scales_of_a_resize_are_not() -> None:
    exact, half = initialisers(toy_graph()), initialisers(float16_from_float32(toy_graph()))
    for name in ("teacher_w", "teacher_b", "down_w", "main_w", "main_b", "up_w"):
        assert name not in half
        np.testing.assert_array_equal(half[f"{name}_half"], np.float16(exact[name]))
        assert half[f"{name}_half"].dtype == np.float16
    assert half["scales"].dtype == np.float32
    assert half["half_range"].dtype == np.float32


def test_it_runs_and_is_near_the_float_graph() -> None:
    images = toy_images(4)
    size = ModelSize(HEIGHT, WIDTH)
    exact, half = (
        OnnxRuntimeSession(model.SerializeToString(), threads=1, size=size).infer(images)
        for model in (toy_graph(), float16_from_float32(toy_graph()))
    )
    error = np.abs(exact.anomaly_map - half.anomaly_map).max()
    assert 0.0 < error < 5e-3
    assert half.anomaly_map.dtype == np.float32


def test_the_features_are_what_rounding_by_hand_gives() -> None:
    exact, half = toy_graph(), float16_from_float32(toy_graph())
    images = toy_images(1)
    (image,), (converted,) = (
        values_of(exact, images, "normalised"),
        values_of(half, images, "normalised_half"),
    )
    np.testing.assert_array_equal(converted, np.float16(image))


def test_weights_that_overflow_are_named() -> None:
    model = toy_graph()
    for weight in model.graph.initializer:
        if weight.name == "main_w":
            values = numpy_helper.to_array(weight).copy()
            values[0, 0, 0, 0] = 65520.0  # rounds to infinity, 65519 would round to 65504
            weight.CopyFrom(numpy_helper.from_array(values, "main_w"))
    with pytest.raises(PrecisionError) as refusal:
        float16_from_float32(model)
    assert "main_w" in refusal.value.what
    assert "--precision fp32" in (refusal.value.hint or "")
    assert "down_w" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_weights_that_are_not_finite_are_named() -> None:
    with pytest.raises(PrecisionError, match="down_w"):
        float16_from_float32(toy_graph(weight_scale=float("nan")))


@pytest.mark.parametrize("peak", [20000.0, float("inf"), float("nan")])
def test_nodes_that_overflow_stay_in_float_between_casts(peak: float) -> None:
    half = float16_from_float32(toy_graph(), {"main": peak, "teacher": 10.0})
    found = types(half)
    # The node that gives `main` and the node that takes it stay in float32; nodes before and after are float16.
    assert found["main"] == found["sum"] == TensorProto.FLOAT
    assert found["embedding"] == found["residual"] == TensorProto.FLOAT16
    assert found["embedding_float"] == TensorProto.FLOAT
    assert [node.input[0] for node in half.graph.node if node.op_type == "Conv"][-1] == "embedding_float"
    kept = initialisers(half)
    assert kept["main_w"].dtype == np.float32
    assert "main_w_half" not in kept
    with OnnxRuntimeSession(half.SerializeToString(), threads=1) as session:
        assert np.isfinite(session.infer(toy_images(2)).anomaly_map).all()


def test_a_real_overflow_is_fixed() -> None:
    # Values of the student near 1e6 are infinite in float16, and correct if their layers stay in float32.
    model, images = toy_graph(weight_scale=1e6), toy_images(2)
    weights = {weight.name: weight for weight in model.graph.initializer}
    # The weights fit into float16, and the outputs do not.
    small = numpy_helper.to_array(weights["down_w"]).clip(-6e4, 6e4)
    weights["down_w"].CopyFrom(numpy_helper.from_array(small.astype(np.float32), "down_w"))
    names = ("down", "embedding", "main", "sum", "residual", "up", "student")
    absolute_maxima = {
        name: float(np.abs(value).max())
        for name, value in zip(names, values_of(model, images, *names), strict=True)
    }
    assert absolute_maxima["down"] > 65504.0
    with np.errstate(over="ignore", invalid="ignore"):
        (broken,) = values_of(float16_from_float32(model), images, "embedding")
    assert not np.isfinite(broken).all()
    fixed = float16_from_float32(model, absolute_maxima)
    (embedding,) = values_of(fixed, images, "embedding")
    assert np.isfinite(embedding).all()
    exact, half = (
        OnnxRuntimeSession(graph.SerializeToString(), threads=1).infer(images) for graph in (model, fixed)
    )
    np.testing.assert_allclose(half.anomaly_map, exact.anomaly_map, atol=5e-3)


def test_pairs_of_values_that_overflow_stay_in_float() -> None:
    model = toy_graph()
    limits = dict.fromkeys(tensors_to_quantise(model), 4.0)
    graph = int8_from_float32(model, {**limits, "embedding": 60000.0})
    half = float16_from_float32(graph, {"embedding": 60000.0})
    found = types(half)
    # The pair of `embedding` holds its values, and so do the convolution and the addition that take them.
    for name in ("down", "embedding", "embedding_dq", "main", "sum"):
        assert found[name] == (TensorProto.FLOAT16 if name == "down" else TensorProto.FLOAT), name
    assert found["teacher_dq"] == found["conv_t"] == found["residual"] == TensorProto.FLOAT16
    with OnnxRuntimeSession(half.SerializeToString(), threads=1) as session:
        assert np.isfinite(session.infer(toy_images(2)).anomaly_map).all()


def test_without_pairs_the_opset_stays() -> None:
    half = float16_from_float32(toy_graph())
    assert [entry.version for entry in half.opset_import if entry.domain == ""] == [18]
