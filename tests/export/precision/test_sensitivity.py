"""Sensitive layers: the fewest that cause most of the harm. A layer with a bad clipping limit is found first."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from onnx import ModelProto

from edgead.errors import PrecisionError
from edgead.export.precision.calibration import absolute_maxima_of
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from edgead.export.precision.sensitivity import SHARE, fewest, sensitive_layers
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


def absolute_maxima(model: ModelProto, images: np.ndarray) -> dict[str, float]:
    return absolute_maxima_of(model, images, tensors_to_quantise(model))


@pytest.mark.parametrize(("tensor", "layer"), [("image", "conv_t"), ("teacher", "down")])
def test_a_layer_with_a_bad_clipping_limit_is_found_first(tensor: str, layer: str) -> None:
    model, images = toy_graph(), toy_images(3)
    clipping_limits = absolute_maxima(model, images)
    # The limit is a hundredth of the absolute maximum.
    clipping_limits[tensor] /= 100.0
    found = sensitive_layers(model, clipping_limits, {}, images)
    assert found[0] == layer
    # The other layers do so little harm that this one alone causes the share.
    assert found == (layer,)


def test_the_sensitive_layers_cause_the_share_of_the_harm() -> None:
    model, images = toy_graph(seed=1), toy_images(4)
    clipping_limits, layers = absolute_maxima(model, images), layers_to_quantise(model)
    assert layers == ("conv_t", "down", "main", "sum")
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        exact = session.infer(images).anomaly_map.astype(np.float64)
    harm = {}
    for layer in layers:
        alone = int8_from_float32(
            model, clipping_limits, excluded=[other for other in layers if other != layer]
        )
        with OnnxRuntimeSession(alone.SerializeToString()) as session:
            harm[layer] = np.square(session.infer(images).anomaly_map - exact).mean()
    found = sensitive_layers(model, clipping_limits, {}, images)
    order = sorted(layers, key=lambda layer: harm[layer], reverse=True)
    assert list(found) == order[: len(found)]
    total = sum(harm.values())
    assert sum(harm[layer] for layer in found) >= SHARE * total > sum(harm[layer] for layer in found[:-1])


def test_progress_is_logged_and_a_missing_clipping_limit_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    model, images = toy_graph(), toy_images(1)
    caplog.set_level(logging.INFO, "edgead")
    sensitive_layers(model, absolute_maxima(model, images), {}, images)
    assert caplog.messages == ["measuring how sensitive each layer is: 0 of 4"]
    with pytest.raises(PrecisionError, match="'image'"):
        sensitive_layers(model, {}, {}, images)
