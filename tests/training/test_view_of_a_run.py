"""A run with a view: what it is trained on, its threshold, its bundle, and images that the memory does not hold."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import edgead
from edgead.data import open_dataset
from edgead.data.images import load_images
from edgead.data.stored_images import JoinedImages, StoredImages
from edgead.engine.build import build_bundle
from edgead.errors import CollapseError, ImageError, InputError, RunError
from edgead.files.memory import free_host_bytes
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View, ignore_text, read_roi
from edgead.training.run import open_run
from edgead.training.training import train_run
from tests.helpers.training_parts import TINY_TEACHER, cpu, tiny_config, write_images

SIZE_PX = 128
LINEAR = {"method": "linear", "loss": "squared-error", "hold_out": "2"}
IGNORED = np.zeros((SIZE_PX, SIZE_PX), bool)
IGNORED[100:, :] = True
TILES = View(roi=read_roi("8,8,112,112"), ignore=ignore_text(IGNORED), overlap=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "parts", 6, SIZE_PX)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> edgead.Run:
    config = tiny_config(data, **LINEAR, view=TILES)
    return train_run(config, tmp_path_factory.mktemp("run") / "run", cpu())


def test_a_run_in_tiles_has_one_threshold_for_whole_images(run, data):
    assert run.view == open_run(run.path).view == TILES
    assert run.record.parts["parts"].train_images == 4
    threshold = run.thresholds["parts"]
    assert threshold.n_normal == 2
    with edgead.load(run.path) as model:
        scores = [model.predict(data / name).anomaly_score for name in run.record.parts["parts"].holdout]
    assert threshold.value == pytest.approx(max(scores), rel=1e-5)


def test_its_bundle_decides_alike(run, data, tmp_path):
    bundle = build_bundle(run, tmp_path / "bundle")
    assert bundle.manifest.view == TILES
    image = cv2.imread(str(data / "000.png"))[..., ::-1].copy()
    image[60:66, 60:66] = (255, 0, 0)
    other = image.copy()
    other[104:, :] = 255
    with edgead.load(run.path) as trained, edgead.load(bundle) as built:
        expected, found = trained.predict(image), built.predict(image)
        # Pixels that are ignored change nothing at all.
        assert built.predict(other).anomaly_score == found.anomaly_score
        assert trained.predict(other).anomaly_score == expected.anomaly_score
    assert found.anomaly_score == pytest.approx(expected.anomaly_score, rel=1e-3)
    assert found.is_anomalous is expected.is_anomalous


def test_a_build_names_the_image_that_the_view_does_not_fit(run, data, tmp_path):
    image = data / run.record.parts["parts"].holdout[0]
    content = image.read_bytes()
    try:
        cv2.imwrite(str(image), np.full((64, 64, 3), 99, np.uint8))
        with pytest.raises(ImageError) as caught:
            build_bundle(run, tmp_path / "bundle")
    finally:
        image.write_bytes(content)
    assert str(image) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_images_that_are_read_again_train_alike(data, tmp_path, monkeypatch):
    losses = []
    for name in ("kept", "read"):
        with suppress(CollapseError):  # one epoch teaches little
            train_run(tiny_config(data, epochs=1, view=TILES), tmp_path / name, cpu())
        (row,) = json.loads((tmp_path / name / "metrics.json").read_text())
        losses.append((row["loss"], row["holdout_loss"]))
        monkeypatch.setattr("edgead.data.images.KEPT_BYTES", 0)
    assert losses[0] == losses[1]


def test_stored_images_are_indexed_like_an_array(data, monkeypatch):
    samples = open_dataset(data).read_as(None, TILES).train
    size = ModelSize(64, 64)
    array = load_images(samples, size)
    monkeypatch.setattr("edgead.data.images.KEPT_BYTES", 0)
    stored = load_images(samples, size)
    assert isinstance(stored.images, StoredImages)
    both = JoinedImages([array.images, stored.images])
    assert stored.images.shape == array.images.shape == (24, 64, 64, 3)
    for key in (3, slice(2, 9), slice(-3, None), np.array([20, 2, 2, 17]), torch.tensor([5, 1])):
        expected = array.images[np.asarray(key) if isinstance(key, torch.Tensor) else key]
        np.testing.assert_array_equal(stored.images[key], expected)
        np.testing.assert_array_equal(
            both[key],
            np.concatenate([array.images] * 2)[np.asarray(key) if isinstance(key, torch.Tensor) else key],
        )
    np.testing.assert_array_equal(stored.rows(5), array.rows(5))
    few = load_images(samples, size, most_tiles=12)
    assert few.images.shape[0] == 12
    assert not few.framings


def test_the_same_command_with_another_view_is_refused(run, data):
    with pytest.raises(RunError) as caught:
        train_run(tiny_config(data, **LINEAR), run.path, cpu())
    assert "--roi" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"roi": "100,100,40,20"}, ImageError),
        ({"tile": 256}, ImageError),
        ({"tile": 64, "size": 64}, InputError),
        ({"tile": 64, "overlap": 40}, InputError),
        ({"overlap": 16}, InputError),
        ({"tile": 64, "fit": "pad"}, InputError),
        ({"ignore": "small"}, ImageError),
        ({"ignore": "full"}, ImageError),
        ({"ignore": "missing"}, ImageError),
    ],
)
def test_views_that_cannot_be_are_refused_before_the_training(data, tmp_path, options, error):
    for name, mask in {"small": IGNORED[:64], "full": np.ones_like(IGNORED)}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask.astype(np.uint8) * 255)
    given = {
        name: tmp_path / f"{value}.png" if name == "ignore" else value for name, value in options.items()
    }
    with pytest.raises(error) as caught:
        edgead.train(
            data, tmp_path / "run", method="linear", teacher=TINY_TEACHER, teacher_weights="random", **given
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/run.json").exists()


def test_the_memory_is_known():
    assert free_host_bytes() > 0
