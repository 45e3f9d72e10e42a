"""Equalisation changes no output, brings the channels of quantised tensors closer, and keeps what it cannot change."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgead.export.head.onnx_function import append_head
from edgead.export.precision.calibration import channel_maxima_of
from edgead.export.precision.channels import STRENGTH
from edgead.export.precision.equalize import equalised
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import HeadSpec
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images, values_of

FEATURES = ("teacher", "student")


def rich_graph(last_activation: str = "Relu") -> ModelProto:
    """Each operator that equalisation knows: ReLU6, depthwise and grouped convolutions, a residual stream, a
    concatenation, an upsampling, a transposed convolution. Ranges of channels differ up to a hundredfold.
    """
    rng = np.random.default_rng(0)
    node = helper.make_node
    weights: list[TensorProto] = []

    def conv(
        source: str, name: str, shape: tuple[int, ...], channels: int, kind: str = "Conv", **settings: object
    ) -> NodeProto:
        spread = 10.0 ** rng.uniform(-1.0, 1.0, shape[0])[:, None, None, None]
        kernel = rng.normal(0.0, 1.0 / np.sqrt(np.prod(shape[1:])), shape) * spread
        bias = rng.normal(0.0, 0.5, channels)
        weights.extend(
            numpy_helper.from_array(values.astype(np.float32), f"{name}_{role}")
            for values, role in ((kernel, "w"), (bias, "b"))
        )
        return node(kind, [source, f"{name}_w", f"{name}_b"], [name], **settings)

    nodes = [
        node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        node("Div", ["planes", "full"], ["image"]),
        conv("image", "stem", (8, 3, 4, 4), 8, strides=[4, 4]),
        node("Clip", ["stem", "zero", "six"], ["stem_6"]),
        conv("stem_6", "expand", (12, 8, 1, 1), 12),
        node("Clip", ["expand", "zero", "six"], ["expand_6"]),
        conv("expand_6", "depthwise", (12, 1, 3, 3), 12, group=12, pads=[1, 1, 1, 1]),
        node("Clip", ["depthwise", "zero", "six"], ["depthwise_6"]),
        conv("depthwise_6", "project", (8, 12, 1, 1), 8),
        conv("project", "inner", (8, 4, 3, 3), 8, group=2, pads=[1, 1, 1, 1]),
        node("Add", ["inner", "project"], ["teacher"]),
        conv("teacher", "down", (6, 8, 3, 3), 6, strides=[2, 2], pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["down"], ["down_relu"], alpha=0.1),
        node("MaxPool", ["teacher"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["down_relu", "pooled"], ["cat"], axis=1),
        conv("cat", "mixed", (4, 14, 3, 3), 4, pads=[1, 1, 1, 1]),
        node("Mul", ["mixed", "small"], ["mixed_small"])
        if last_activation == "Sigmoid"
        else node("Relu", ["mixed"], ["mixed_small"]),
        node(last_activation, ["mixed_small"], ["mixed_relu"]),
        node("Resize", ["mixed_relu", "", "twice"], ["wide"], mode="nearest"),
        conv("wide", "after", (4, 4, 3, 3), 4, pads=[1, 1, 1, 1]),
        node("Relu", ["after"], ["after_relu"]),
        conv("after_relu", "unlike", (4, 4, 1, 1), 4),
        node("InstanceNormalization", ["unlike", "norm_w", "norm_b"], ["norm"]),
        node("LeakyRelu", ["norm"], ["norm_relu"], alpha=0.1),
        conv("norm_relu", "gated", (4, 4, 1, 1), 4),
        # A gate reads its tensor as it is, and so does the multiplication by the gate.
        node("Sigmoid", ["norm_relu"], ["gate"]),
        node("Mul", ["norm_relu", "gate"], ["through"]),
        conv("through", "shortcut", (4, 4, 1, 1), 4),
        node("Add", ["gated", "shortcut"], ["joined"]),
        node("Mul", ["channel_factors", "joined"], ["multiplied"]),
        conv("joined", "beside", (4, 4, 1, 1), 4),
        node("Add", ["multiplied", "beside"], ["sum"]),
        conv("sum", "turned", (4, 6, 1, 1), 6, kind="ConvTranspose"),
        conv("turned", "student", (8, 6, 1, 1), 8),
    ]
    by_channel = 10.0 ** np.linspace(-1.0, 1.0, 4)
    constants = {
        "norm_w": by_channel,
        "norm_b": by_channel[::-1],
        "channel_factors": by_channel[None, :, None, None],
    }
    constants |= {"full": 255.0, "zero": 0.0, "six": 6.0, "small": 0.01, "twice": [1.0, 1.0, 2.0, 2.0]}
    weights.extend(numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in constants.items())
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])
    features = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8, HEIGHT // 4, WIDTH // 4])
        for name in FEATURES
    ]
    graph = helper.make_graph(nodes, "rich", [images], features, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return append_head(model, HeadSpec(HEIGHT, WIDTH, sigma=1.0))


def maxima(model: ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """Absolute maxima of channels, by ONNX's reference evaluator."""
    tensors = tensors_to_quantise(model)
    values = values_of(model, images, *tensors)
    return {name: np.abs(value).max(axis=(0, 2, 3)) for name, value in zip(tensors, values, strict=True)}


def head_inputs(model: ModelProto, images: np.ndarray) -> list[np.ndarray]:
    (head,) = [node for node in model.graph.node if node.domain == "edgead"]
    return values_of(model, images, *head.input)


@pytest.mark.parametrize(
    "model", [toy_graph(), rich_graph(), rich_graph("Sigmoid")], ids=["toy", "rich", "sigmoid"]
)
def test_the_features_stay_the_same_on_other_images_and_at_the_borders(model: ModelProto) -> None:
    before = model.SerializeToString()
    equal = equalised(model, maxima(model, toy_images(3)))
    assert model.SerializeToString() == before
    assert equal.SerializeToString() != before
    other = toy_images(2, seed=9)
    for expected, found in zip(head_inputs(model, other), head_inputs(equal, other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_layers_and_tensors_keep_their_names() -> None:
    model = rich_graph()
    equal = equalised(model, maxima(model, toy_images(3)))
    assert layers_to_quantise(equal) == layers_to_quantise(model)
    assert tensors_to_quantise(equal) == tensors_to_quantise(model)


def test_a_channel_of_a_tensor_of_its_own_is_divided_by_a_power_of_its_range() -> None:
    model, images = rich_graph(), toy_images(3)
    found, before = maxima(equalised(model, maxima(model, images)), images), maxima(model, images)
    np.testing.assert_allclose(found["wide"], before["wide"] ** (1.0 - STRENGTH), rtol=1e-4)
    # In a residual stream the larger range of the two tensors counts.
    shared = np.maximum(before["project"], before["teacher"]) ** STRENGTH
    np.testing.assert_allclose(found["project"], before["project"] / shared, rtol=1e-4)
    np.testing.assert_allclose(found["teacher"], before["teacher"] / shared, rtol=1e-4)


def test_the_interval_of_relu6_is_centred_only_without_padding() -> None:
    model, images = rich_graph(), toy_images(3)
    names = ("stem_6", "expand_6", "depthwise_6")
    before = dict(zip(names, values_of(model, images, *names), strict=True))
    equal = equalised(model, maxima(model, images))
    found = dict(zip(names, values_of(equal, images, *names), strict=True))
    # `expand` and `project` are 1x1; the depthwise convolution reads a padded tensor.
    for name in ("stem_6", "depthwise_6"):
        np.testing.assert_allclose(found[name], before[name] - before[name].max() / 2.0, atol=1e-4)
        assert found[name].max() == pytest.approx(-found[name].min(), rel=1e-4)
    np.testing.assert_allclose(found["expand_6"], before["expand_6"], atol=1e-4)


def test_an_activation_that_nobody_reads_is_left_alone() -> None:
    model, images = rich_graph(), toy_images(2)
    found = maxima(model, images)
    stem = next(number for number, node in enumerate(model.graph.node) if node.output[0] == "stem")
    unread = helper.make_node("Conv", ["image", "stem_w", "stem_b"], ["unread"], strides=[4, 4])
    model.graph.node.insert(stem, unread)
    model.graph.node.insert(stem + 1, helper.make_node("Clip", ["unread", "zero", "six"], ["unread_6"]))
    expected, equal = head_inputs(model, images), equalised(model, found)
    for one, other in zip(expected, head_inputs(equal, images), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def test_a_tensor_that_another_operator_reads_keeps_its_channels() -> None:
    model, images = rich_graph("Sigmoid"), toy_images(3)
    found, before = maxima(equalised(model, maxima(model, images)), images), maxima(model, images)
    np.testing.assert_allclose(found["wide"], before["wide"], rtol=1e-4)
    assert not np.allclose(found["cat"], before["cat"], rtol=0.1)


def test_a_tensor_that_another_operator_reads_too_is_equalised_for_the_convolutions() -> None:
    """`norm_relu` has a gate beside its convolution, and a multiplication by constants reads `joined`."""
    model, images = rich_graph(), toy_images(3)
    equal = equalised(model, maxima(model, images))
    found, before = maxima(equal, images), maxima(model, images)
    np.testing.assert_allclose(found["norm_relu"], before["norm_relu"] ** (1.0 - STRENGTH), rtol=1e-4)
    assert found["joined"].max() / found["joined"].min() < before["joined"].max() / before["joined"].min()
    restored = values_of(equal, images, "norm_relu_restored")[0]
    np.testing.assert_allclose(restored, values_of(model, images, "norm_relu")[0], rtol=1e-3, atol=1e-3)


def test_a_channel_that_is_always_zero_changes_nothing() -> None:
    model, images = rich_graph(), toy_images(2)
    found = maxima(model, images)
    equal = equalised(model, {name: np.zeros_like(value) for name, value in found.items()})
    for expected, value in zip(head_inputs(model, images), head_inputs(equal, images), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    found["wide"][1] = 0.0
    for value in head_inputs(equalised(model, found), images):
        assert np.isfinite(value).all()


def spread_graph() -> ModelProto:
    """The toy graph with the same answers, but with channels of its residual stream that differ a hundredfold."""
    model = toy_graph()
    by = 10.0 ** np.linspace(-1.0, 1.0, 6)
    stored = {weight.name: weight for weight in model.graph.initializer}
    rows, columns = by[:, None, None, None], by[None, :, None, None]
    for name, factor in {"down_w": rows, "main_w": rows / columns, "main_b": by, "up_w": 1.0 / rows}.items():
        values = numpy_helper.to_array(stored[name]) * factor
        stored[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def test_int8_does_not_suffer_from_channels_of_different_size() -> None:
    images, other = toy_images(8), toy_images(4, seed=9)
    with OnnxRuntimeSession(toy_graph().SerializeToString(), threads=1) as session:
        exact = session.infer(other).anomaly_map

    def error(graph: ModelProto) -> float:
        with OnnxRuntimeSession(graph.SerializeToString(), threads=1) as session:
            return float(np.square(session.infer(other).anomaly_map - exact).mean())

    spread = spread_graph()
    assert error(spread) < 1e-8
    found = channel_maxima_of(spread, images, tensors_to_quantise(spread))
    plain = error(int8_from_float32(spread, {name: float(value.max()) for name, value in found.items()}))
    equal = error(int8_graph(spread, images))
    assert error(int8_graph(toy_graph(), images)) / 4.0 < equal < plain / 10.0


def test_channel_maxima_are_over_all_images() -> None:
    model, images = rich_graph(), toy_images(3)
    tensors = tensors_to_quantise(model)
    found = channel_maxima_of(model, images, tensors)
    for name, expected in maxima(model, images).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4)
