"""Calibration: clipping limits from the values of a graph, and a cache for one graph and one list of images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import EdgeadError, PrecisionError
from edgead.export.graph_sections import computed_tensors
from edgead.export.precision.calibration import (
    absolute_maxima_of,
    calibrate,
    calibration_key,
)
from edgead.export.precision.calibration_file import read_calibration, write_calibration
from edgead.export.precision.clipping import ALGORITHMS, clipping_limit_from_histogram, magnitude_histogram
from edgead.export.precision.equalize import equalised
from tests.helpers.toy_graph import toy_graph, toy_images, values_of

TENSORS = ("image", "teacher", "embedding")
CHANNEL_MAXIMA = {"image": [1.0] * 3, "teacher": [2.0] * 8, "embedding": [0.5] * 6}
BIAS_CORRECTIONS = {"conv_t": [0.5] * 8, "down": [0.0] * 6, "main": [0.25] * 6}
HARM = {"conv_t": 0.5, "down": 0.0, "main": 1e-9, "sum": 2.0}


def test_absolute_maxima_are_over_all_images() -> None:
    model, images = toy_graph(), toy_images(5)
    tensors = computed_tensors(model)
    assert tensors[:3] == ("image", "conv_t", "teacher")
    absolute_maxima = absolute_maxima_of(model, images, tensors)
    for name, value in zip(tensors, values_of(model, images, *tensors), strict=True):
        assert absolute_maxima[name] == pytest.approx(float(np.abs(value).max()), rel=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_clipping_limits_are_those_of_all_images_together(algorithm: str) -> None:
    model, images = toy_graph(), toy_images(5)
    calibration = calibrate(model, images, algorithm)
    assert (calibration.algorithm, calibration.images) == (algorithm, 5)
    equal = equalised(model, calibration.channel_maxima)
    for name, value in zip(TENSORS, values_of(equal, images, *TENSORS), strict=True):
        peak = float(np.abs(value).max())
        # A squared error counts in relation to the values of its image.
        counts = sum(
            magnitude_histogram(of_image, peak) / ((of_image**2).sum() if algorithm == "mse" else 1.0)
            for of_image in value
        )
        expected = clipping_limit_from_histogram(counts, peak, algorithm)
        # Two runtimes may count a value at the edge of a bin in different bins, which moves the choice by one candidate
        # at most.
        assert calibration.clipping_limits[name] == pytest.approx(expected, abs=8.5 * peak / 2048)


@pytest.mark.parametrize("unusual", [0, 32])
def test_one_unusual_image_does_not_decide_alone(unusual: int) -> None:
    # 32 images of nearly one grey, and one of all values, with values thirty times as large.
    images = (124 + toy_images(33) % 8).astype(np.uint8)
    images[unusual] = toy_images(1)[0]
    calibration = calibrate(toy_graph(), images, "mse")
    (image,) = values_of(equalised(toy_graph(), calibration.channel_maxima), images, "image")
    assert np.abs(image[unusual]).max() > 30.0 * np.abs(np.delete(image, unusual, axis=0)).max()
    assert calibration.clipping_limits["image"] < 0.6 * np.abs(image).max()
    # Nor does it shift the biases: its own shift is large, because it is clipped.
    others = calibrate(toy_graph(), np.delete(images, unusual, axis=0), "mse")
    for name, shift in calibration.bias_corrections.items():
        assert np.abs(shift).max() < 3.0 * np.abs(others.bias_corrections[name]).max() + 1e-3


@pytest.mark.parametrize("algorithm", ["entropy", "percentile"])
def test_an_image_without_contrast_does_not_decide_which_share_is_clipped(algorithm: str) -> None:
    images = toy_images(9)
    # The grey whose activations of the first convolution are closest to zero.
    images[4] = 127
    found, without = (
        calibrate(toy_graph(), chosen, algorithm).clipping_limits["image"]
        for chosen in (images, np.delete(images, 4, axis=0))
    )
    assert found > 0.8 * without


def test_a_tensor_that_is_not_finite_is_named() -> None:
    with pytest.raises(PrecisionError, match="'embedding'"):
        calibrate(toy_graph(weight_scale=float("inf")), toy_images(1), "minmax")


def test_the_key_is_of_graph_images_and_algorithm() -> None:
    model, images = toy_graph(), toy_images(3)
    key = calibration_key(model, images, "mse")
    assert len(key) == 64
    assert calibration_key(toy_graph(), images.copy(), "mse") == key
    changed = images.copy()
    changed[2, 3, 4, 1] ^= 1
    others = {
        calibration_key(toy_graph(seed=1), images, "mse"),
        calibration_key(model, images, "minmax"),
        calibration_key(model, changed, "mse"),
        calibration_key(model, images[:2], "mse"),
        calibration_key(model, images[::-1], "mse"),
    }
    assert len(others | {key}) == 6


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "calibration" / "x.json"
    model, images = toy_graph(), toy_images(2)
    assert read_calibration(file, "any", model) is None
    calibration = calibrate(model, images, "percentile")
    write_calibration(file, calibration)
    read = read_calibration(file, calibration.key, model)
    assert read is not None
    assert read.clipping_limits == calibration.clipping_limits
    assert list(read.harm.items()) == list(calibration.harm.items())
    assert list(read.harm) == ["conv_t", "down", "main", "sum"]
    assert set(read.bias_corrections) == {"conv_t", "down", "main"}
    for name, shift in calibration.bias_corrections.items():
        np.testing.assert_array_equal(read.bias_corrections[name], shift)
    assert set(read.channel_maxima) == set(TENSORS)
    for name, maxima in calibration.channel_maxima.items():
        np.testing.assert_array_equal(read.channel_maxima[name], maxima)
    assert (read.key, read.algorithm, read.images) == (calibration.key, "percentile", 2)
    assert [entry.name for entry in file.parent.iterdir()] == ["x.json"]


def test_a_stale_cache_is_refused_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    calibration = calibrate(toy_graph(), toy_images(2), "minmax")
    write_calibration(file, calibration)
    before = file.read_bytes()
    other = calibration_key(toy_graph(), toy_images(3), "minmax")
    with pytest.raises(PrecisionError) as refusal:
        read_calibration(file, other, toy_graph())
    assert str(file) in refusal.value.what
    assert "\n" not in str(refusal.value)
    # It is a whole cache, not a broken one.
    assert refusal.value.__cause__ is None
    assert file.read_bytes() == before
    file.write_text(json.dumps({**json.loads(before), "schema": 4}))
    with pytest.raises(PrecisionError) as refusal:
        read_calibration(file, calibration.key, toy_graph())
    assert re.findall(r"\b\d\b", refusal.value.what.removeprefix(f"the calibration cache {file}")) == [
        "4",
        "8",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"clipping_limits": {"image": 1.0}},
        {"clipping_limits": {**dict.fromkeys(TENSORS, 1.0), "another": 1.0}},
        {"clipping_limits": {**dict.fromkeys(TENSORS, 1.0), "image": -1.0}},
        {"clipping_limits": {**dict.fromkeys(TENSORS, 1.0), "image": float("nan")}},
        {"clipping_limits": {**dict.fromkeys(TENSORS, 1.0), "image": 10**400}},
        {"clipping_limits": [1.0]},
        {"images": "many"},
        {"channel_maxima": {**CHANNEL_MAXIMA, "teacher": [2.0] * 7}},
        {"channel_maxima": {**CHANNEL_MAXIMA, "teacher": [-2.0] * 8}},
        {"bias_corrections": {}},
        {"bias_corrections": [1.0]},
        {"bias_corrections": {**BIAS_CORRECTIONS, "main": [0.0]}},
        {"bias_corrections": {**BIAS_CORRECTIONS, "main": [float("nan")] * len(BIAS_CORRECTIONS["main"])}},
        {"bias_corrections": {**BIAS_CORRECTIONS, "another": [0.0]}},
        {"bias_corrections": {**BIAS_CORRECTIONS, "main": [1e300] * len(BIAS_CORRECTIONS["main"])}},
        {"harm": {}},
        {"harm": {**HARM, "main": -1e-9}},
        {"harm": {**HARM, "main": float("inf")}},
        {"harm": {**HARM, "another": 0.0}},
        {"images": True},
        {"algorithm": 1},
        {"schema": True},
        {"key": None},
        {"extra": 1},
    ],
)
def test_other_content_than_a_cache_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    clipping_limits = dict.fromkeys(TENSORS, 1.0)
    good = {
        "schema": 8,
        "key": "k",
        "algorithm": "mse",
        "images": 3,
        "channel_maxima": CHANNEL_MAXIMA,
        "clipping_limits": clipping_limits,
        "bias_corrections": BIAS_CORRECTIONS,
        "harm": HARM,
    }
    file.write_text(json.dumps(good))
    assert read_calibration(file, "k", toy_graph()) is not None
    file.write_text(json.dumps({**good, **change}))
    with pytest.raises(PrecisionError) as refusal:
        read_calibration(file, "k", toy_graph())
    assert str(file) in str(refusal.value)
    # The content is wrong; a stale cache has no cause.
    assert isinstance(refusal.value.__cause__, ValueError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (2**24 + 1)])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(PrecisionError) as refusal:
        read_calibration(file, "k", toy_graph())
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgeadError, match=str(tmp_path)):
        read_calibration(tmp_path, "k", toy_graph())
