"""EfficientAD: its losses by hand, what the stages train and keep, the published teacher, the map."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.errors import TeacherError
from edgead.imaging.anomaly_map import cosine_map
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.components.descriptors import hard_mean, pretrained_descriptors
from edgead.models.components.patch_description import PUBLISHED_SPEC, description_network, imagenet_pixels
from edgead.models.efficientad import EfficientAd
from edgead.training.loop import Trainer, TrainingImages
from tests.helpers.training_parts import cpu, good_parts, tiny_config

SIZE = ModelSize(64, 64)
PARTS = good_parts(12)
TRAIN, HELD_OUT = torch.from_numpy(PARTS[:8]), PARTS[8:]


def made(teacher: str = "test_efficientnet", weights: str = "random") -> EfficientAd:
    torch.manual_seed(0)
    kind = METHODS["efficientad"]
    method = create_method("efficientad", kind.create_teacher(teacher, weights), SIZE, "hard")
    assert isinstance(method, EfficientAd)
    return method


def fitted(method: EfficientAd, folder, epochs: int = 2, train=TRAIN) -> list[dict[str, float]]:
    config = tiny_config(folder, method="efficientad", loss="hard", epochs=epochs, learning_rate=2e-3)
    images = TrainingImages(train, torch.from_numpy(HELD_OUT[:2]))
    return Trainer(cpu(), method, config.schedule, images, folder / "c.pt").fit().metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> EfficientAd:
    method = made()
    fitted(method, tmp_path_factory.mktemp("trained"), epochs=10)
    return method


# The networks and the losses


def test_a_descriptor_depends_on_a_patch_of_33_pixels():
    network = made().patch_teacher.double()
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    found = network(pixels)
    assert found.shape == (1, 64, 16, 16)
    found[0, :, 8, 7].sum().backward()
    seen = pixels.grad[0].abs().sum(0).nonzero()
    # Centred on the first pixel of the cell, 32 and 28.
    assert seen.amin(0).tolist() == [16, 12]
    assert seen.amax(0).tolist() == [48, 44]


def test_the_hard_loss_is_the_mean_of_the_largest_thousandth():
    errors = torch.arange(4000.0)[torch.randperm(4000)].reshape(2, 5, 20, 20)
    assert float(hard_mean(errors)) == (3996 + 3997 + 3998 + 3999) / 4
    assert float(hard_mean(torch.tensor([1.0, 7.0]))) == 7.0


def test_the_loss_by_hand():
    target = torch.zeros(1, 2, 4, 4)
    both = torch.cat([torch.full_like(target, 2.0), torch.full_like(target, 3.0)], dim=1)
    both[0, 1, 2, 3] = 5.0
    # The hardest element, A against T, and A against S2.
    expected = 5.0**2 + 4.0**2 + (4.0 - 3.0) ** 2
    assert float(made().loss([target], [both, torch.full_like(target, 4.0)])) == pytest.approx(expected)


def test_channels_are_pooled_after_their_normalisation():
    generator = torch.Generator().manual_seed(3)
    x = (
        torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64)
        * 10.0 ** torch.arange(6)[:, None, None]
    )
    y = x.numpy()
    y = (y - y.mean((0, 2, 3), keepdims=True)) / np.sqrt(y.var((0, 2, 3), keepdims=True) + 1e-5)
    y = y.reshape(2, 3, 2, 4, 5).mean(2)
    y = (y - y.mean((0, 2, 3), keepdims=True)) / np.sqrt(y.var((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(pretrained_descriptors([x], x.shape[2:], 3).numpy(), y, rtol=1e-6)


@torch.no_grad()
def test_only_training_changes_colours_and_adds_textures():
    method = made().eval()
    method.enter_stage(1)
    method.student[-1].bias.data.fill_(3.0)
    held_out = float(method(TRAIN[:4], []))
    descriptors = [method.descriptors(TRAIN[:4])]
    plain = float(method.loss(descriptors, method.student_features(TRAIN[:4], descriptors)))
    assert held_out == pytest.approx(plain)
    method.train()
    method.recolour = nn.Identity()
    # Five images bring two textures; S1 is 3 on top of what the last layer had.
    assert float(method(TRAIN[:5], [])) > held_out + 2.0


@torch.no_grad()
def test_the_held_out_loss_of_the_distillation_needs_only_the_features_that_are_there():
    method = made().eval()
    zeros = [torch.zeros_like(x) for x in method.teacher_features(TRAIN[:3])]
    # Normalised features of zeros are zeros, so the distance from them is the mean square.
    expected = float(method.patch_teacher(imagenet_pixels(TRAIN[:3])).double().square().mean())
    assert float(method(TRAIN[:3], zeros)) == pytest.approx(expected, rel=1e-5)
    method.train()
    assert float(method(TRAIN[:3], zeros)) != pytest.approx(expected, rel=1e-2)


# The stages


def test_each_stage_trains_its_own_networks_and_keeps_what_it_found(tmp_path):
    method = made()
    before = {key: value.clone() for key, value in method.named_parameters()}
    at_stage_1 = {}
    begin = method.begin_stage

    def watched(batches):
        begin(batches)
        if method.stage == 1:
            at_stage_1.update({key: value.detach().clone() for key, value in method.named_parameters()})

    method.begin_stage = watched
    metrics = fitted(method, tmp_path)
    assert [row["stage"] for row in metrics] == [0, 1]
    for key, value in method.named_parameters():
        distilled, students = key.startswith("patch_teacher."), key.startswith(("student.", "autoencoder."))
        assert torch.equal(before[key], at_stage_1[key]) != distilled, key
        assert torch.equal(at_stage_1[key], value) != students, key
    with torch.no_grad():
        normalised = method.descriptors(TRAIN).double()
    torch.testing.assert_close(
        normalised.mean((0, 2, 3)), torch.zeros(64, dtype=torch.float64), atol=1e-3, rtol=0.0
    )
    assert float(normalised.var((0, 2, 3)).mean()) == pytest.approx(1.0, rel=0.01)


def errors_of(method: EfficientAd, images: np.ndarray) -> list[np.ndarray]:
    """Mean squares of T - S1 and A - S2, (N, H, W) float64 each."""
    images = torch.from_numpy(images)
    with torch.no_grad():
        t = method.descriptors(images).double().numpy()
        s, a = (x.double().numpy() for x in method.student_features(images, []))
    return [((t - s[:, :64]) ** 2).mean(1), ((a - s[:, 64:]) ** 2).mean(1)]


def test_units_are_differences_of_quantiles_over_the_training_images(trained):
    for unit, errors in zip(trained.units, errors_of(trained, TRAIN.numpy()), strict=True):
        low, high = np.quantile(errors, [0.9, 0.995])
        assert float(unit) == pytest.approx(high - low, rel=1e-3)


# The published teacher


def published_state(names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = description_network(PUBLISHED_SPEC).state_dict()
    renamed = dict(zip(("0", "3", "6", "8"), names, strict=True))
    return {f"{renamed[key[0]]}.{key[2:]}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("names", [("0", "3", "6", "8"), ("conv1", "conv2", "conv3", "conv4")])
def test_published_weights_are_the_ones_used_and_need_no_distillation(names, tmp_path):
    torch.save(published_state(names), tmp_path / "teacher.pth")
    method = made("pdn_small", str(tmp_path / "teacher.pth"))
    plain = description_network(PUBLISHED_SPEC)
    plain.load_state_dict(published_state(("0", "3", "6", "8")))
    before = {key: value.clone() for key, value in method.named_parameters()}
    if names[0] == "0":
        assert [row["stage"] for row in fitted(method, tmp_path, 1, TRAIN[:2])] == [0]
        for key, value in method.named_parameters():
            assert torch.equal(value, before[key]) == key.startswith("teacher."), key
        # The statistics are of raw descriptors of all training images.
        with torch.no_grad():
            raw = plain(imagenet_pixels(TRAIN[:2])).double()
        torch.testing.assert_close(method.descriptor_mean.double(), raw.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            method.descriptor_variance.double(), raw.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-8
        )
    with torch.no_grad():
        torch.testing.assert_close(method.teacher(TRAIN[:1])[0], plain(imagenet_pixels(TRAIN[:1])))


def test_other_weights_than_the_published_ones_are_refused(tmp_path):
    good = published_state(("conv1", "conv2", "conv3", "conv4"))
    medium = {**good, "conv5.weight": torch.zeros(384, 384, 1, 1)}
    narrow = {**good, "conv1.weight": torch.zeros(64, 3, 4, 4)}
    missing = {key: value for key, value in good.items() if key != "conv4.bias"}
    for state, word in ((medium, "'conv5.weight'"), (narrow, "(64, 3, 4, 4)"), (missing, "'8.bias'")):
        torch.save(state, tmp_path / "teacher.pth")
        with pytest.raises(TeacherError) as refusal:
            made("pdn_small", str(tmp_path / "teacher.pth"))
        assert word in refusal.value.what
    with pytest.raises(TeacherError):
        made("pdn_small", "package")


# The map


def images_of_parts() -> np.ndarray:
    """Good parts, then the same with defects: (8, 64, 64, 3) uint8."""
    return np.concatenate([HELD_OUT, synthetic_defects(HELD_OUT)])


def test_the_cosine_map_is_the_published_one_on_a_sphere(trained):
    images = images_of_parts()
    local_error, global_error = errors_of(trained, images)
    units = trained.units.double().numpy()
    published = local_error / units[0] + global_error / units[1]
    with torch.no_grad():
        (teacher,), (student,) = trained.features(torch.from_numpy(images))
    got = cosine_map(teacher.numpy(), student.numpy())
    factor = 2.0 / (64.0 * (1.0 / units).sum())
    assert spearmanr(got.ravel(), published.ravel()).statistic > 0.999
    # The sphere is flat on good parts.
    np.testing.assert_allclose(
        got[:4], factor * published[:4], rtol=0.1, atol=0.01 * factor * published.mean()
    )
