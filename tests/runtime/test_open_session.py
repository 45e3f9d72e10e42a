from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.errors import BackendError, BundleError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session
from edgead.scoring.threshold import Threshold
from edgead.types import BACKENDS
from tests.helpers.golden_answers import golden_of_model, verification_of


def bundle_of(path, files, size=None) -> Bundle:
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=size or ModelSize(32, 64),
        thresholds={"washer": Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification=verification_of("washer"),
        verified=True,
        verified_on={},
    )
    if "model.onnx" in files:
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
        files = {**files, "golden.npz": golden_bytes(golden_of_model(files["model.onnx"], images))}
    return write_bundle(path, manifest, files)


def test_a_bundle_opens_and_infers(make_model, images, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    with open_session(bundle, threads=1) as session:
        scores = session.infer(images).anomaly_score
    np.testing.assert_allclose(
        scores, images.astype(np.float64).mean(axis=3).max(axis=(1, 2)) / 255, atol=1e-6
    )


def test_an_unknown_backend_lists_the_known(make_model, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    other = replace(bundle, manifest=replace(bundle.manifest, backend="abacus"))
    with pytest.raises(BundleError, match="abacus") as caught:
        open_session(other)
    assert all(name in str(caught.value) for name in BACKENDS)


def test_threads_of_a_cpu_are_no_setting_of_an_engine(make_model, tmp_path):
    bundle = bundle_of(tmp_path / "bundle", {"model.onnx": make_model().SerializeToString()})
    engine = replace(bundle, manifest=replace(bundle.manifest, backend="tensorrt"))
    with pytest.raises(InputError, match="threads") as caught:
        open_session(engine, threads=2)
    assert str(bundle.path) in caught.value.what


def test_a_bundle_without_a_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"model\.onnx.*edgead build"):
        open_session(bundle_of(tmp_path / "bundle", {"notes.txt": b""}))


def test_a_model_of_another_size_is_refused(make_model, tmp_path):
    files = {"model.onnx": make_model().SerializeToString()}
    with pytest.raises(BackendError, match="64x64"):
        open_session(bundle_of(tmp_path / "bundle", files, ModelSize(64, 64)))
