"""A session that does not give the golden answers is rejected at its start; an honest session starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgead import runtime
from edgead.bundle import Bundle, write_bundle
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating
from edgead.errors import VerificationError
from edgead.imaging import decode, preprocess
from edgead.runtime import open_session
from edgead.types import Fusion, Prediction
from tests.helpers.toy_run import ToyRun


def int8_bundle(folder: Path, fusion: Fusion) -> Bundle:
    plan = Plan(candidate_precisions=("int8",), calibrating=Calibrating(cache=folder / "calibration.json"))
    return build_bundle(ToyRun(fusion=fusion), folder / "bundle", plan)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return int8_bundle(tmp_path_factory.mktemp("int8"), "add")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a method that multiplies its scales."""
    return int8_bundle(tmp_path_factory.mktemp("product"), "multiply")


def with_model(bundle: Bundle, path: Path, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    """A bundle with a changed graph and the golden answers of the honest one."""
    model = onnx.load(bundle.file("model.onnx"))
    change(model)
    files: dict[str, Path | bytes] = {name: bundle.file(name) for name in bundle.manifest.files}
    return write_bundle(path, bundle.manifest, {**files, "model.onnx": model.SerializeToString()})


def test_an_honest_session_starts(int8: Bundle) -> None:
    with open_session(int8) as session:
        assert np.isfinite(session.infer(int8.golden().images).anomaly_score).all()


@pytest.mark.parametrize("bundle", ["int8", "product"])
@pytest.mark.parametrize("half", ["teacher_2"])
def test_one_scale_of_the_weights_times_four_is_refused(
    bundle: str, half: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    honest: Bundle = request.getfixturevalue(bundle)
    changed = []

    def quadruple(model: onnx.ModelProto) -> None:
        for constant in model.graph.initializer:
            if half in constant.name and constant.name.endswith("weight_scale"):
                changed.append(constant.name)
                values = numpy_helper.to_array(constant) * np.float32(1.5)
                constant.CopyFrom(numpy_helper.from_array(values, constant.name))

    sabotaged = with_model(honest, tmp_path / half, quadruple)
    assert len(changed) == 1
    with pytest.raises(VerificationError):
        open_session(sabotaged)


def test_a_session_with_swapped_channels_is_refused(int8: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runtime._opened

    def swapped(bundle: Bundle, threads: int | None) -> runtime.Session:
        session = honest(bundle, threads)
        infer = session.infer

        def infer_swapped(batch: np.ndarray) -> Prediction:
            return infer(np.ascontiguousarray(batch[..., ::-1]))

        monkeypatch.setattr(session, "infer", infer_swapped)
        return session

    monkeypatch.setattr(runtime, "_opened", swapped)
    with pytest.raises(VerificationError):
        open_session(int8)


def test_a_reader_with_swapped_channels_is_refused(int8: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = decode._rgb8_from_pixels
    monkeypatch.setattr(decode, "_rgb8_from_pixels", lambda pixels, depth: honest(pixels, depth)[..., ::-1])
    with pytest.raises(VerificationError):
        open_session(int8)


@pytest.mark.parametrize("interpolation", [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_another_interpolation_is_refused(
    interpolation: int, int8: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess.cv2, "INTER_AREA", interpolation)
    with pytest.raises(VerificationError):
        open_session(int8)
