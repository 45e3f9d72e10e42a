"""Builds in lower precisions: they are verified, have their own thresholds, and are rejected if sabotaged."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgead.bundle import Bundle, open_bundle
from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.engine.build import build_bundle
from edgead.engine.calibration_images import CALIBRATE_ON, CalibrateOn, calibration_images
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import (
    Calibrating,
    CandidatePrecision,
    ConvertedModel,
    PrecisionConverter,
)
from edgead.errors import DataError, PrecisionError, VerificationError
from edgead.runtime import open_session
from edgead.runtime.agreement import compare_sessions
from edgead.scoring.threshold import threshold_from_normal_scores
from tests.helpers.toy_run import PART, SIZE, ToyRun, make_images

SHAPE = (SIZE.height_px, SIZE.width_px, 3)


def int8_plan(
    folder: Path, candidate_precision: CandidatePrecision = "int8", calibrate_on: CalibrateOn = "mixed"
) -> Plan:
    return Plan(
        candidate_precisions=(candidate_precision,),
        calibrating=Calibrating(calibrate_on, cache=folder / "clipping_limits.json"),
    )


@pytest.fixture(scope="module")
def exact(folder: Path) -> Bundle:
    return build_bundle(ToyRun(), folder / "fp32")


@pytest.fixture(scope="module")
def half(folder: Path) -> Bundle:
    return build_bundle(ToyRun(), folder / "fp16", plan=Plan(candidate_precisions=("fp16",)))


@pytest.fixture(scope="module")
def int8(folder: Path) -> Bundle:
    return build_bundle(ToyRun(), folder / "int8", plan=int8_plan(folder))


def product_plan(folder: Path) -> Plan:
    return Plan(candidate_precisions=("int8",), calibrating=Calibrating(cache=folder / "product.json"))


@pytest.fixture(scope="module")
def product(folder: Path) -> Bundle:
    """A bundle of a method that multiplies its two scales."""
    return build_bundle(ToyRun(fusion="multiply"), folder / "product", plan=product_plan(folder))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_manifest_says_precision_and_table(
    precision: str, exact: Bundle, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue({"fp16": "half", "int8": "int8"}[precision])
    manifest = open_bundle(bundle.path).manifest
    found = manifest.verification["parts"][PART]
    limits = found["limits"]
    assert manifest.precision == precision
    assert manifest.verification["reference"] == "onnxruntime fp32"
    assert found["n"] == 24
    assert 0.0 < found["map_error_max"] <= limits["map_error_max"]
    assert 0.0 < found["score_error_max"] <= limits["score_error_max"]
    assert limits["rank_correlation_min"] <= found["rank_correlation"] <= 1.0
    assert found["decision_flips"] <= limits["decision_flips_max"]
    tolerance, threshold = (
        Plan().target.tolerances.of(manifest.precision),
        exact.manifest.thresholds[PART].value,
    )
    assert limits["map_error_max"] == tolerance.map_error
    assert found["reference_threshold"] == pytest.approx(threshold)


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_the_threshold_is_set_on_the_scores_of_the_bundle(
    precision: str, exact: Bundle, request: pytest.FixtureRequest
) -> None:
    bundle = request.getfixturevalue(precision)
    with open_session(bundle) as session:
        scores = session.infer(ToyRun().holdout_images()[PART].images).anomaly_score
    expected = threshold_from_normal_scores(scores, 0.01, 0.95)
    assert bundle.manifest.thresholds[PART].value == pytest.approx(expected.value, abs=1e-6)
    assert bundle.manifest.thresholds[PART].value != exact.manifest.thresholds[PART].value


def test_the_measures_of_the_manifest_are_right(exact: Bundle, int8: Bundle) -> None:
    good = ToyRun().holdout_images()[PART].images
    with open_session(exact) as reference, open_session(int8) as built:
        fidelity = compare_sessions(
            reference,
            built,
            np.concatenate([good, synthetic_defects(good)]),
            exact.manifest.thresholds[PART].value,
            other_threshold=int8.manifest.thresholds[PART].value,
        )
    found = int8.manifest.verification["parts"][PART]
    assert found["map_error_max"] == pytest.approx(fidelity.map_error_max, abs=1e-6)
    assert found["rank_correlation"] == pytest.approx(fidelity.rank_correlation)
    assert found["decision_flips"] == fidelity.decision_flips


def test_the_golden_answers_are_the_answers_of_the_bundle(int8: Bundle) -> None:
    golden = int8.golden()
    with open_session(int8) as session:
        prediction = session.infer(golden.images)
    np.testing.assert_allclose(prediction.anomaly_map, golden.anomaly_map, rtol=0.0, atol=1e-6)


def test_the_bundle_holds_the_clipping_limits(int8: Bundle, half: Bundle, folder: Path) -> None:
    assert set(half.manifest.files) == {"model.onnx", "golden.npz"}
    assert "calibration" not in half.manifest.verification
    cache = json.loads(int8.file("calibration.json").read_text())
    assert cache == json.loads((folder / "clipping_limits.json").read_text())
    said = dict(int8.manifest.verification["calibration"])
    assert said.pop("key") == cache["key"]
    rounded = {
        node.output[0]
        for node in onnx.load(str(int8.file("model.onnx"))).graph.node
        if any(name.endswith("_dq") for name in node.input)
    }
    # The layers of float are named, and a rebuild chooses the same from the harm in the file.
    assert set(said.pop("in_float")) == cache["harm"].keys() - rounded
    assert said == {"calibrate_on": "mixed", "algorithm": "mse", "images": 20, "in_fp16": []}


def test_a_cache_saves_the_calibration_until_it_is_stale(
    int8: Bundle, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgead")
    again = build_bundle(ToyRun(), tmp_path / "x", plan=int8_plan(folder, "int8-student"))
    # The only line is about the file: nothing was calibrated.
    logged = [record.args for record in caplog.records if record.module == "precision_converter"]
    assert logged == [(folder / "clipping_limits.json",)]
    assert (
        again.manifest.verification["calibration"]["key"] == int8.manifest.verification["calibration"]["key"]
    )
    assert again.file("model.onnx").read_bytes() != int8.file("model.onnx").read_bytes()
    before = (folder / "clipping_limits.json").read_bytes()
    with pytest.raises(PrecisionError) as stale:
        build_bundle(ToyRun(), tmp_path / "y", plan=int8_plan(folder, calibrate_on="train"))
    assert str(folder / "clipping_limits.json") in str(stale.value)
    assert not (tmp_path / "y").exists()
    assert (folder / "clipping_limits.json").read_bytes() == before


def test_the_cache_has_the_bundles_name_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_bundle(
        ToyRun(),
        tmp_path / "parts",
        plan=Plan(candidate_precisions=("int8",), calibrating=Calibrating("noise", "minmax")),
    )
    assert (tmp_path / "calibration" / "parts.json").is_file()


def weight_scales(model: bytes) -> list[str]:
    names = [weight.name for weight in onnx.load_from_string(model).graph.initializer]
    return [name for name in names if name.endswith("weight_scale")]


def sabotaged(model: bytes, scale: str) -> bytes:
    graph = onnx.load_from_string(model)
    for weight in graph.graph.initializer:
        if weight.name == scale:
            changed = numpy_helper.to_array(weight) * np.float32(8.0)
            weight.CopyFrom(numpy_helper.from_array(changed, scale))
    content: bytes = graph.SerializeToString()
    assert content != model
    return content


def sabotage(
    monkeypatch: pytest.MonkeyPatch, scale: str, candidate_precision: CandidatePrecision = "int8"
) -> None:
    """Multiply one scale of the graph of one candidate precision by eight."""
    graph = PrecisionConverter.graph

    def sabotaging(self: PrecisionConverter, asked: CandidatePrecision) -> ConvertedModel:
        honest = graph(self, asked)
        return (
            replace(honest, model=sabotaged(honest.model, scale)) if asked == candidate_precision else honest
        )

    monkeypatch.setattr(PrecisionConverter, "graph", sabotaging)


@pytest.mark.parametrize("layer", range(2))
def test_one_scale_times_eight_is_caught_and_nothing_is_written(
    layer: int, int8: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in int8.path.iterdir()}
    scales = weight_scales(before["model.onnx"])
    # The first, the last and the transposed convolution of the toy stay in float.
    assert len(scales) == 2

    sabotage(monkeypatch, scales[layer])
    with pytest.raises(VerificationError) as refusal:
        build_bundle(ToyRun(), int8.path, plan=int8_plan(folder))
    assert refusal.value.exit_code == 3
    assert "\n" not in str(refusal.value)
    assert {file.name: file.read_bytes() for file in int8.path.iterdir()} == before


@pytest.mark.parametrize("layer", range(2))
def test_one_scale_times_eight_is_caught_where_maps_are_multiplied(
    layer: int, product: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = product.manifest.verification["parts"][PART]
    assert judged["limits"]["factors"] == 2, "the toy has two scales"
    sabotage(monkeypatch, weight_scales(product.file("model.onnx").read_bytes())[layer])
    with pytest.raises(VerificationError):
        build_bundle(ToyRun(fusion="multiply"), tmp_path / "new", plan=product_plan(folder))
    assert list(tmp_path.iterdir()) == []


def test_a_product_is_judged_by_its_root(folder: Path, product: Bundle, tmp_path: Path) -> None:
    exact = build_bundle(ToyRun(fusion="multiply"), tmp_path / "exact")
    # Float32 errs in the last bits, so its product is compared as it is.
    assert exact.manifest.verification["parts"][PART]["limits"]["factors"] == 1
    good = ToyRun().holdout_images()[PART].images
    images, threshold = np.concatenate([good, synthetic_defects(good)]), exact.manifest.thresholds[PART].value
    with open_session(exact) as reference, open_session(product) as built:
        batches = [images[start : start + 8] for start in range(0, len(images), 8)]
        maps = [
            np.concatenate([session.infer(batch).anomaly_map for batch in batches]).astype(np.float64)
            for session in (reference, built)
        ]
    expected, found = (np.sqrt(np.maximum(values, 0.0)) for values in maps)
    errors = np.abs(found - expected) / np.maximum(expected, np.sqrt(threshold))
    judged = product.manifest.verification["parts"][PART]
    assert judged["map_error_max"] == pytest.approx(errors.max(), rel=1e-3)


def test_a_refused_build_leaves_no_new_directory(
    int8: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, weight_scales(int8.file("model.onnx").read_bytes())[0])
    with pytest.raises(VerificationError):
        build_bundle(ToyRun(), tmp_path / "new", plan=int8_plan(folder))
    assert list(tmp_path.iterdir()) == []


def good_images(there: int) -> Callable[[int], np.ndarray]:
    return lambda count: make_images(min(count, there), seed=6).images


@pytest.mark.parametrize("calibrate_on", CALIBRATE_ON)
def test_the_calibration_images_are_the_same_each_time(calibrate_on: Any) -> None:
    first, second = (calibration_images(calibrate_on, SHAPE, good_images(20)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (64 if calibrate_on == "noise" else 20, *SHAPE)
    assert first.dtype == np.uint8


def test_mixed_is_half_good_images_and_half_synthetic_defects() -> None:
    good = good_images(20)(64)
    mixed = calibration_images("mixed", SHAPE, good_images(20))
    np.testing.assert_array_equal(mixed[:10], good[::2])
    changed = (mixed[10:] != good[1::2]).any(axis=(1, 2, 3))
    assert changed.all()
    assert (calibration_images("defects", SHAPE, good_images(20)) != good).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(calibration_images("train", SHAPE, good_images(20)), good)


def test_three_images_are_too_few_and_noise_needs_none(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        build_bundle(ToyRun(training_count=3), tmp_path / "x", plan=int8_plan(tmp_path))
    assert re.findall(r"\b\d+\b", refusal.value.what) == ["3", "8"]
    assert refusal.value.hint is not None
    assert "--calibrate-on noise" in refusal.value.hint
    assert list(tmp_path.iterdir()) == []
    assert len(calibration_images("noise", SHAPE, good_images(0))) == 64
