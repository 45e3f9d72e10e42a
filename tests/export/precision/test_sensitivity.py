"""Harm of each layer alone, as a session with only this layer quantised shows it, and the layers that stay in float."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from edgead.export.cost import multiply_adds
from edgead.export.precision.calibration import absolute_maxima_of
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.export.precision.sensitivity import (
    FASTER_TARGET,
    IMAGES,
    LARGEST_SHARE,
    LEAST_SHARE,
    TARGET,
    fewest,
    float_layers,
    measured_harm,
)
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.toy_graph import toy_graph, toy_images


@pytest.mark.parametrize(
    ("share", "names"),
    [
        # The sum is 10: b has 5 of it, b and d 8, with a 9.5.
        (0.0, ()),
        (0.5, ("b",)),
        (0.51, ("b", "d")),
        (0.8, ("b", "d")),
        (0.9, ("b", "d", "a")),
        (1.0, ("b", "d", "a", "c")),
    ],
)
def test_the_fewest_by_hand(share: float, names: tuple[str, ...]) -> None:
    assert fewest({"a": 1.5, "b": 5.0, "c": 0.5, "d": 3.0}, share) == names


def test_no_harm_makes_no_layer_sensitive() -> None:
    assert fewest({}, 0.9) == ()
    assert fewest({"a": 0.0, "b": 0.0}, 0.9) == ()
    # Names without harm are not chosen either.
    assert fewest({"a": 0.0, "b": 1.0}, 1.0) == ("b",)


def limits_of(model: ModelProto, images: np.ndarray) -> dict[str, float]:
    return absolute_maxima_of(model, images, tensors_to_quantise(model))


@pytest.mark.parametrize(("tensor", "layer"), [("image", "conv_t"), ("teacher", "down")])
def test_a_layer_with_a_bad_clipping_limit_does_nearly_all_harm(tensor: str, layer: str) -> None:
    model, images = toy_graph(), toy_images(3)
    clipping_limits = limits_of(model, images)
    # The limit is a hundredth of the absolute maximum.
    clipping_limits[tensor] /= 100.0
    harm = measured_harm(model, int8_from_float32(model, clipping_limits), images)
    assert fewest(harm, 0.9) == (layer,)


def test_harm_is_the_squared_error_of_the_map_with_one_quantised_layer() -> None:
    model, images = toy_graph(seed=1), toy_images(3)
    # One image is nearly white, so its map is larger and its error is another.
    images[1] = 255 - images[1] // 8
    clipping_limits, layers = limits_of(model, images), layers_to_quantise(model)
    bias_corrections = {"down": np.full(6, 0.01, np.float32)}
    harm = measured_harm(
        model, int8_from_float32(model, clipping_limits, bias_corrections=bias_corrections), images
    )
    assert list(harm) == list(layers) == ["conv_t", "down", "main", "sum"]
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        exact = session.infer(images).anomaly_map.astype(np.float64)
    squares = np.square(exact).mean(axis=(1, 2, 3))
    for layer in layers:
        alone = int8_from_float32(
            model,
            clipping_limits,
            bias_corrections=bias_corrections,
            excluded=[other for other in layers if other != layer],
        )
        with OnnxRuntimeSession(alone.SerializeToString()) as session:
            errors = np.square(session.infer(images).anomaly_map - exact).mean(axis=(1, 2, 3))
        assert harm[layer] == pytest.approx((errors / squares).mean(), rel=1e-3), layer


def test_harm_is_measured_on_a_few_images_of_every_part_of_the_list() -> None:
    model, images = toy_graph(), toy_images(4 * IMAGES)
    quantised = int8_from_float32(model, limits_of(model, images))
    assert measured_harm(model, quantised, images) == measured_harm(model, quantised, images[::4])


def test_layers_stay_in_float_by_their_harm_for_their_work_within_the_share() -> None:
    model = toy_graph()
    counts = multiply_adds(model)
    share = {name: counts.get(name, 0) / sum(counts.values()) for name in layers_to_quantise(model)}
    # By hand: 8 x 16 positions of 8 x 48, and 4 x 8 positions of 6 x 72 and of 6 x 54.
    assert [counts[name] for name in ("conv_t", "down", "main")] == [49_152, 13_824, 10_368]
    assert share["conv_t"] > LARGEST_SHARE > share["down"] + share["main"] + LEAST_SHARE
    # The addition costs least. `conv_t` does the most harm, but it is too much work.
    harm = {"conv_t": 9.0, "down": 2.0, "main": 1.9, "sum": 1.0}
    assert float_layers(model, harm) == ("sum", "main", "down")
    # Twice the harm outweighs a third more work.
    assert float_layers(model, {**harm, "down": 4.0}) == ("sum", "down", "main")


def test_no_more_layers_stay_in_float_than_the_target_needs() -> None:
    small = TARGET**2 / 4.0
    harm = {"conv_t": small, "down": small, "main": small, "sum": 0.9 * small}
    assert float_layers(toy_graph(), harm) == ()
    # With the addition in float the rest is below the target.
    assert float_layers(toy_graph(), {**harm, "sum": 5.0}) == ("sum",)


def test_the_target_can_be_larger_for_a_faster_graph() -> None:
    # The root of the sum is 0.005: above 0.002 and below 0.01.
    harm = {"down": 0.004**2, "main": 0.003**2}
    assert (TARGET, FASTER_TARGET) == (0.002, 0.01)
    assert set(float_layers(toy_graph(), harm)) == {"down", "main"}
    assert float_layers(toy_graph(), harm, FASTER_TARGET) == ()
