import numpy as np
import pytest
import torch

from edgead.errors import InputError
from edgead.imaging import anomaly_map as oracle
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.runtime.base import Session
from edgead.training.session import TorchSession
from tests.helpers.training_parts import TINY_TEACHER, good_parts


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return create_method("rd", create_teacher(TINY_TEACHER, "random"), ModelSize(64, 64), "flattened")


def test_a_session_computes_the_map_of_the_features(method):
    images = good_parts(2)
    method.train()
    with TorchSession(method) as session:
        assert isinstance(session, Session)
        assert not method.training
        first, second = session.infer(images), session.infer(images[1:])
    with torch.no_grad():
        teacher, student = method.features(torch.from_numpy(images))
    expected_map, expected_score = oracle.anomaly_map(
        [x.numpy() for x in teacher], [x.numpy() for x in student], 64, 64
    )
    assert first.anomaly_map.dtype == first.anomaly_score.dtype == np.float32
    np.testing.assert_allclose(first.anomaly_map, expected_map, atol=1e-5)
    np.testing.assert_allclose(first.anomaly_score, expected_score, atol=1e-5)
    # The numbers of an image do not depend on its batch.
    np.testing.assert_array_equal(second.anomaly_map, first.anomaly_map[1:])
    np.testing.assert_array_equal(second.anomaly_score, first.anomaly_score[1:])
    assert session.inputs[0].shape == (None, 64, 64, 3)
    assert session.outputs[0].shape == (None, 1, 64, 64)


@pytest.mark.parametrize(
    "batch",
    [np.zeros((1, 64, 32, 3), np.uint8), np.zeros((1, 64, 64, 3)), np.zeros((0, 64, 64, 3), np.uint8)],
)
def test_a_batch_that_does_not_fit_is_refused(method, batch):
    with pytest.raises(InputError) as caught:
        TorchSession(method).infer(batch)
    assert all(str(side) in str(caught.value) for side in batch.shape)
