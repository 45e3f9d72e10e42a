import pytest
import torch

import edgead.training.features as features_module
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import MethodConfig
from edgead.models.components.teacher import create_teacher
from edgead.models.rd import LOSSES
from edgead.training.features import TeacherFeatures
from tests.helpers.training_parts import TINY_TEACHER, Template, good_parts

IMAGES = torch.from_numpy(good_parts(21))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(2)
    return Template(create_teacher(TINY_TEACHER, "random"), MethodConfig(ModelSize(64, 64), LOSSES[0]))


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_batch_has_images_and_their_features(method, monkeypatch, share):
    monkeypatch.setattr(features_module, "MEMORY_SHARE", share)
    features = TeacherFeatures(method, IMAGES, CPU)
    numbers = torch.tensor([20, 3, 16, 3])

    images, got = features.batch(numbers)

    assert features.cached == (share > 0)
    assert features.count == 21
    assert torch.equal(images, IMAGES[numbers])
    for k, x in enumerate(got):
        expected = torch.cat([method.teacher_features(IMAGES[[n]])[k] for n in numbers.tolist()])
        torch.testing.assert_close(x, expected)
        assert not x.requires_grad


def test_the_bytes_are_those_of_all_features(method):
    channels, sizes = (24, 32, 48), (16, 8, 4)
    floats = sum(c * s * s for c, s in zip(channels, sizes, strict=True))
    assert TeacherFeatures(method, IMAGES, CPU).bytes == 21 * floats * 4


def test_features_are_cached_if_memory_allows(method, monkeypatch):
    size = TeacherFeatures(method, IMAGES, CPU).bytes
    for free, cached in ((2 * size, True), (2 * size - 1, False)):
        monkeypatch.setattr(features_module, "free_bytes", lambda _, free=free: free)
        assert TeacherFeatures(method, IMAGES, CPU).cached == cached


def test_features_on_the_host_are_cached_up_to_a_size(method, monkeypatch):
    size = TeacherFeatures(method, IMAGES, CPU).bytes
    for most, cached in ((size, True), (size - 1, False)):
        monkeypatch.setattr(features_module, "HOST_BYTES", most)
        assert TeacherFeatures(method, IMAGES, CPU).cached == cached
