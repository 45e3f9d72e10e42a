"""The baseline against its definition in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgead.comparison.nearest_mean import NearestMeanSession
from edgead.errors import InputError
from edgead.imaging.anomaly_map import anomaly_map
from edgead.models.components.teacher import Teacher, create_teacher
from tests.helpers.training_parts import TINY_TEACHER, good_parts


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return create_teacher(TINY_TEACHER, "random")


def test_it_is_the_cosine_distance_from_the_mean(teacher):
    # More than one batch, and the last one smaller.
    good, asked = good_parts(21), good_parts(5)[::-1].copy()
    asked[0, 20:30, 20:30] = 255
    with torch.no_grad():
        features = [
            [x.numpy().astype(np.float64) for x in teacher(torch.from_numpy(i))] for i in (good, asked)
        ]
    means = [np.broadcast_to(x.mean(0), y.shape) for x, y in zip(*features, strict=True)]
    maps, scores = anomaly_map(features[1], means, 64, 64, "add", 4.0)
    with NearestMeanSession(teacher, good) as session:
        found = session.infer(asked)
    np.testing.assert_allclose(found.anomaly_map, maps, atol=2e-6)
    np.testing.assert_allclose(found.anomaly_score, scores, atol=2e-6)
    # The damaged one is the farthest from the mean.
    assert scores.argmax() == 0


def test_it_takes_images_of_its_size_alone(teacher):
    session = NearestMeanSession(teacher, good_parts(2))
    with pytest.raises(InputError):
        session.infer(np.zeros((1, 32, 64, 3), np.uint8))
