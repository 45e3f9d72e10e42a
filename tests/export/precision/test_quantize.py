"""Q/DQ pairs: their places, and their arithmetic as ONNX defines it, computed by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgead.errors import PrecisionError
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.toy_graph import initialisers, toy_graph, toy_images, values_of


def clipping_limits(model: onnx.ModelProto, largest: float = 4.0) -> dict[str, float]:
    return dict.fromkeys(tensors_to_quantise(model), largest)


def test_pairs_stand_on_convolutions_and_on_the_skip_of_a_residual_addition() -> None:
    model = toy_graph()
    # `main` is fused with the addition; `sum`, `down` and the features go to no convolution.
    assert tensors_to_quantise(model) == ("image", "teacher", "embedding")
    assert tensors_to_quantise(model, "student") == ("teacher", "embedding")
    quantised = int8_from_float32(model, clipping_limits(model))
    inputs = {node.output[0]: list(node.input) for node in quantised.graph.node}
    assert inputs["conv_t"] == ["image_dq", "teacher_w_dq", "teacher_b"]
    assert inputs["main"] == ["embedding_dq", "main_w_dq", "main_b"]
    assert inputs["sum"] == ["main", "embedding_dq"]
    # A transposed convolution stays in float.
    assert inputs["up"] == ["residual", "up_w"]
    assert inputs["anomaly_map"] == ["teacher", "student"]
    assert [node.op_type for node in quantised.graph.node].count("QuantizeLinear") == 3
    assert quantised.functions == model.functions
    onnx.checker.check_model(quantised, full_check=True)


def test_both_inputs_of_an_addition_are_quantised_where_no_convolution_is_fused() -> None:
    model = toy_graph()
    for node in model.graph.node:
        if node.output[0] == "sum":
            node.input[0] = "embedding"
    assert "embedding" in tensors_to_quantise(model)
    quantised = int8_from_float32(model, clipping_limits(model))
    inputs = {node.output[0]: list(node.input) for node in quantised.graph.node}
    assert inputs["sum"] == ["embedding_dq", "embedding_dq"]


def test_a_last_convolution_and_its_addition_stay_in_float_though_the_head_reads_another_tensor() -> None:
    model = toy_graph()
    nodes = model.graph.node
    up = next(index for index, node in enumerate(nodes) if node.output[0] == "student")
    nodes[up].output[0] = "wide"
    (channels,) = {weight.dims[0] for weight in model.graph.initializer if weight.name == "teacher_w"}
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((channels, channels, 1, 1), np.float32), "late_w")
    )
    late = [
        helper.make_node("Conv", ["wide", "late_w"], ["late"]),
        helper.make_node("Add", ["late", "wide"], ["late_sum"]),
        helper.make_node("Abs", ["late_sum"], ["student"]),
    ]
    for place, node in enumerate(late, up + 1):
        nodes.insert(place, node)
    assert set(layers_to_quantise(model)) == set(layers_to_quantise(toy_graph()))


def test_the_students_convolutions_alone() -> None:
    model = toy_graph()
    inputs = {
        node.output[0]: list(node.input)
        for node in int8_from_float32(model, clipping_limits(model), "student").graph.node
    }
    assert inputs["conv_t"] == ["image", "teacher_w", "teacher_b"]
    assert inputs["down"] == ["teacher_dq", "down_w_dq"]


def test_weights_are_int8_with_one_symmetric_scale_for_each_output_channel() -> None:
    model = toy_graph()
    exact, quantised = initialisers(model), initialisers(int8_from_float32(model, clipping_limits(model)))
    for name in ("teacher_w", "down_w"):
        weights, steps = exact[name], quantised[f"{name}_q"]
        assert name not in quantised
        assert steps.dtype == np.int8
        for channel, scale, step in zip(weights, quantised[f"{name}_scale"], steps, strict=True):
            # Scales are rounded up to float16.
            assert scale == pytest.approx(np.abs(channel).max() / 127, rel=2**-10)
            assert np.abs(step).max() == 127
            np.testing.assert_allclose(step * scale, channel, atol=float(scale) / 2 * 1.001)
        assert not quantised[f"{name}_zero"].any()
    np.testing.assert_array_equal(quantised["main_b"], exact["main_b"])


def one_by_one(x_weight: float, bias: float) -> onnx.ModelProto:
    """The toy graph with a teacher that multiplies the red channel by one number, to be checked by hand."""
    model = toy_graph()
    weights = {weight.name: weight for weight in model.graph.initializer}
    kernel = np.zeros((8, 3, 4, 4), np.float32)
    kernel[:, 0, 0, 0] = x_weight
    weights["teacher_w"].CopyFrom(numpy_helper.from_array(kernel, "teacher_w"))
    weights["teacher_b"].CopyFrom(numpy_helper.from_array(np.full(8, bias, np.float32), "teacher_b"))
    return model


def test_a_convolution_by_hand() -> None:
    # Red 200 is 200 / 127.5 - 1 = 0.568627. With the limit 127 / 256, a step is 1 / 256, and it is clipped to 127
    # steps. Red 100 is -0.215686, -55.2 steps, rounded to -55 steps. The weight 127 / 64 is 127 steps of 1 / 64,
    # so it is exact. The bias is 0.25.
    images = np.zeros((1, 32, 64, 3), np.uint8)
    images[0, :, :32, 0], images[0, :, 32:, 0] = 200, 100
    model = one_by_one(127 / 64, 0.25)
    quantised = int8_from_float32(model, {**clipping_limits(model), "image": 127 / 256})
    (conv,) = values_of(quantised, images, "conv_t")
    np.testing.assert_allclose(conv[0, :, :, :8], 127 / 256 * 127 / 64 + 0.25, rtol=1e-6)
    np.testing.assert_allclose(conv[0, :, :, 8:], -55 / 256 * 127 / 64 + 0.25, rtol=1e-5)


def test_the_runtime_computes_what_the_reference_evaluator_does() -> None:
    model, images = toy_graph(), toy_images(3)
    quantised = int8_from_float32(model, clipping_limits(model))
    expected_teacher, expected_student = values_of(quantised, images, "teacher", "student")
    exact = OnnxRuntimeSession(quantised.SerializeToString(), threads=1).infer(images)
    from edgead.imaging.anomaly_map import anomaly_map

    expected, _ = anomaly_map([expected_teacher], [expected_student], 32, 64, sigma=1.0)
    np.testing.assert_allclose(exact.anomaly_map, expected, atol=1e-4)


def test_a_channel_of_zeros_stays_zero() -> None:
    model = one_by_one(0.0, 0.5)
    quantised = int8_from_float32(model, {**clipping_limits(model), "image": 0.0})
    (conv,) = values_of(quantised, toy_images(1), "conv_t")
    np.testing.assert_array_equal(conv, np.float32(0.5))


@pytest.mark.parametrize(("groups", "quantised"), [(6, False), (3, True), (1, True)])
def test_a_depthwise_convolution_stays_in_float(groups: int, quantised: bool) -> None:
    # `main` has 6 input channels. With 3 groups each has two of them.
    model = toy_graph()
    for node in model.graph.node:
        if node.output[0] == "main":
            node.attribute.append(helper.make_attribute("group", groups))
    for weight in model.graph.initializer:
        if weight.name == "main_w":
            values = numpy_helper.to_array(weight)[:, : 6 // groups]
            weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), "main_w"))
    assert ("main" in layers_to_quantise(model)) == quantised
    graph = int8_from_float32(model, clipping_limits(model))
    inputs = {node.output[0]: list(node.input) for node in graph.graph.node}
    assert inputs["main"][:2] == (["embedding_dq", "main_w_dq"] if quantised else ["embedding", "main_w"])


def test_scales_are_float16_and_never_smaller() -> None:
    model = toy_graph()
    for weight in model.graph.initializer:
        if weight.name == "down_w":
            # Steps of 2e-6, of 1e-10 and of 0: float16 has a spacing of 6e-8 there.
            values = numpy_helper.to_array(weight).copy()
            values[0] *= 2e-6 * 127 / np.abs(values[0]).max()
            values[1] *= 1e-10 * 127 / np.abs(values[1]).max()
            values[2] = 0.0
            weight.CopyFrom(numpy_helper.from_array(values, "down_w"))
    limits = clipping_limits(model, 3.7)
    half, given = initialisers(int8_from_float32(model, limits)), initialisers(model)
    names = [name.removesuffix("_scale") for name in half if name.endswith("_scale")]
    assert "down_w" in names
    for name in names:
        largest = np.abs(given[name]).max(axis=(1, 2, 3)) if name in given else np.float32(3.7)
        exact, found = np.where(largest > 0.0, largest / 127, 1.0), half[f"{name}_scale"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.astype(np.float16).astype(np.float32), found)
        # At most one step of float16 larger: 2**-10 of a normal number, 2**-24 of a subnormal one.
        assert (found >= exact * (1 - 1e-6)).all()
        assert (found <= exact * (1 + 2**-10) + 2**-24).all()
    # The weights are rounded with the same scale, so they are off by half a step at most.
    found = half["down_w_q"] * half["down_w_scale"].reshape(-1, 1, 1, 1)
    error = np.abs(found - initialisers(model)["down_w"])
    assert (error <= 0.5001 * half["down_w_scale"].reshape(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -1.0])
def test_a_bad_or_missing_clipping_limit_is_refused(broken: float) -> None:
    model = toy_graph()
    with pytest.raises(PrecisionError, match="'teacher'"):
        int8_from_float32(model, {**clipping_limits(model), "teacher": broken})
    with pytest.raises(PrecisionError, match="'image'"):
        int8_from_float32(model, {})


def test_weights_that_are_not_finite_are_named() -> None:
    model = toy_graph(weight_scale=float("nan"))
    with pytest.raises(PrecisionError, match="'down_w'"):
        int8_from_float32(model, clipping_limits(model))


def test_only_int8_and_float_scales_are_added() -> None:
    quantised = int8_from_float32(toy_graph(), clipping_limits(toy_graph()))
    added = {w.name: w.data_type for w in quantised.graph.initializer if w.name.endswith(("_q", "_zero"))}
    assert set(added.values()) == {TensorProto.INT8}
