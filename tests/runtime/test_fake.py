from __future__ import annotations

import numpy as np
import pytest

from edgead.errors import BackendError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession, Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession

SIZE = ModelSize(32, 64)


def test_it_agrees_with_the_same_graph_on_onnx_runtime(make_model, images):
    with FakeSession(SIZE) as fake, OnnxRuntimeSession(make_model().SerializeToString()) as real:
        assert isinstance(fake, Session)
        assert (fake.inputs, fake.outputs) == (real.inputs, real.outputs)
        ours, theirs = fake.infer(images), real.infer(images)
    np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-6)
    np.testing.assert_allclose(ours.anomaly_score, theirs.anomaly_score, atol=1e-6)
    assert ours.anomaly_map.dtype == ours.anomaly_score.dtype == np.float32


def test_a_score_scales_the_map_to_it(images):
    prediction = FakeSession(SIZE, score=2.5).infer(images)
    np.testing.assert_allclose(prediction.anomaly_score, [2.5, 2.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(prediction.anomaly_map.max(axis=(1, 2, 3)), prediction.anomaly_score)
    grey = images.astype(np.float64).mean(axis=3)
    where = [np.unravel_index(plane.argmax(), plane.shape) for plane in grey]
    peaks = [np.unravel_index(plane[0].argmax(), plane[0].shape) for plane in prediction.anomaly_map]
    assert peaks == where


def test_a_callable_gets_each_image(images):
    scores = FakeSession(SIZE, score=lambda image: float(image[0, 0, 0])).infer(images).anomaly_score
    np.testing.assert_allclose(scores, images[:, 0, 0, 0].astype(np.float64), rtol=1e-6)


def test_a_black_image_has_its_score_everywhere():
    prediction = FakeSession(SIZE, score=0.75).infer(np.zeros((1, 32, 64, 3), np.uint8))
    assert (prediction.anomaly_map == np.float32(0.75)).all()
    assert FakeSession(SIZE).infer(np.zeros((1, 32, 64, 3), np.uint8)).anomaly_score == 0


def test_it_raises_the_errors_of_a_real_session(images):
    session = FakeSession(SIZE)
    with pytest.raises(InputError) as caught:
        session.infer(images[:, :16])
    assert "(3, 16, 64, 3)" in caught.value.what
    session.close()
    session.close()
    with pytest.raises(BackendError):
        session.infer(images)
