"""Bias corrections: equal to a computation by hand with the reference evaluator, and zero after the correction."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgead.export.precision.bias_correction import measured_bias_corrections
from edgead.export.precision.quantize import int8_from_float32, layers_to_quantise, tensors_to_quantise
from tests.helpers.toy_graph import initialisers, toy_graph, toy_images, values_of


def clipping_limits(model: onnx.ModelProto, largest: float = 2.0) -> dict[str, float]:
    return dict.fromkeys(tensors_to_quantise(model), largest)


def rounded(value: np.ndarray, largest: float) -> np.ndarray:
    """Values after a Q/DQ pair with this clipping limit, in float64."""
    # The step has the 11 significant bits of float16, rounded up.
    last_bit = 2.0 ** (np.floor(np.log2(largest / 127)) - 10)
    step = np.ceil(largest / 127 / last_bit) * last_bit
    return np.clip(np.rint(value / step), -128, 127) * step


def test_a_shift_is_the_median_over_images_of_the_mean_error_of_a_rounded_convolution() -> None:
    model, images = toy_graph(), toy_images(3)
    bias_corrections = measured_bias_corrections(
        model, int8_from_float32(model, clipping_limits(model)), images
    )
    # One convolution by hand: 4x4 with stride 4 is a product of patches with a matrix.
    (image,) = values_of(model, images, "image")
    patches = image.reshape(3, 3, 8, 4, 16, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 48).astype(np.float64)
    kernel = initialisers(model)["teacher_w"].reshape(8, 48).astype(np.float64)
    coarse = np.stack([rounded(row, np.abs(row).max()) for row in kernel])
    errors = rounded(patches, 2.0) @ coarse.T - patches @ kernel.T
    expected = np.median(errors.reshape(3, -1, 8).mean(axis=1), axis=0)
    np.testing.assert_allclose(bias_corrections["conv_t"], expected, atol=2e-6)
    assert np.abs(expected).max() > 1e-4
    assert set(bias_corrections) == {"conv_t", "down", "main"}
    assert [shift.shape for shift in bias_corrections.values()] == [(8,), (6,), (6,)]


def test_a_shift_does_not_depend_on_the_other_layers() -> None:
    model, images = toy_graph(), toy_images(2)
    both = measured_bias_corrections(model, int8_from_float32(model, clipping_limits(model)), images)
    alone = measured_bias_corrections(
        model, int8_from_float32(model, clipping_limits(model), "student"), images
    )
    assert set(alone) == {"down", "main"}
    for name, shift in alone.items():
        np.testing.assert_array_equal(shift, both[name])


def test_the_median_image_has_the_right_mean_once_the_shift_is_subtracted() -> None:
    # Bright images and clipping limits so low that much is clipped, so the shift is large before the correction.
    model, images = toy_graph(), 128 + toy_images(4) // 2
    narrow = clipping_limits(model, 0.5)
    bias_corrections = measured_bias_corrections(model, int8_from_float32(model, narrow), images)
    (exact,) = values_of(model, images, "conv_t")
    # Only one convolution is quantised, so that no other error reaches it.
    others = set(layers_to_quantise(model)) - {"conv_t"}
    for corrected in (False, True):
        graph = int8_from_float32(
            model, narrow, bias_corrections=bias_corrections if corrected else {}, excluded=others
        )
        (found,) = values_of(graph, images, "conv_t")
        error = np.abs(np.median((found - exact).mean(axis=(2, 3)), axis=0)).max()
        assert (error < 1e-5) if corrected else (error > 0.01)


def test_a_convolution_without_a_bias_gets_one_and_another_keeps_its_own() -> None:
    model = toy_graph()
    bias_corrections = {"down": np.arange(6, dtype=np.float32), "main": np.ones(6, np.float32)}
    graph = int8_from_float32(model, clipping_limits(model), bias_corrections=bias_corrections)
    inputs = {node.output[0]: list(node.input) for node in graph.graph.node}
    weights = initialisers(graph)
    np.testing.assert_array_equal(weights[inputs["down"][2]], -np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(weights[inputs["main"][2]], initialisers(model)["main_b"] - 1.0)
    assert len(inputs["up"]) == 2


@pytest.mark.parametrize("excluded", [("conv_t",), ("sum", "main")])
def test_excluded_layers_stay_as_they_are(excluded: tuple[str, ...]) -> None:
    model = toy_graph()
    bias_corrections = {"main": np.ones(6, np.float32), "conv_t": np.ones(8, np.float32)}
    graph = int8_from_float32(
        model, clipping_limits(model), bias_corrections=bias_corrections, excluded=excluded
    )
    exact = {node.output[0]: node for node in model.graph.node}
    for node in graph.graph.node:
        if node.output[0] in excluded:
            assert node == exact[node.output[0]]
    kept = {weight.name for weight in graph.graph.initializer}
    assert ("main_w" in kept) == ("main" in excluded)
    assert (
        numpy_helper.to_array(next(w for w in graph.graph.initializer if w.name == "down_w_q")).dtype
        == np.int8
    )
