"""The textures of a training's pseudo-anomalies, and the image of examples."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgead.data import load_images
from edgead.data.samples import Sample
from edgead.errors import DataError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS
from edgead.training.training import train_run
from tests.helpers.training_parts import Disturbed, Template, cpu, tiny_config, write_images

GREEN = (10, 240, 10)


@pytest.fixture(autouse=True)
def small_methods(monkeypatch):
    monkeypatch.setitem(METHODS, "template", Template)
    monkeypatch.setitem(METHODS, "disturbed", Disturbed)


@pytest.fixture
def config(tmp_path):
    images = write_images(tmp_path / "images", 12)
    return tiny_config(
        images,
        method="disturbed",
        teacher="tf_efficientnet_lite0",
        teacher_weights="package",
        epochs=8,
        textures=str(tmp_path / "textures"),
    )


@pytest.fixture
def textures(tmp_path):
    (tmp_path / "textures").mkdir()
    plain = np.full((64, 64, 3), GREEN[::-1], np.uint8)
    assert cv2.imwrite(str(tmp_path / "textures" / "green.png"), plain)
    return tmp_path / "textures"


def test_a_run_has_an_image_of_its_pseudo_anomalies(config, textures, tmp_path, caplog):
    caplog.set_level("INFO")
    run = train_run(config, tmp_path / "run", cpu())
    sheet = tmp_path / "run" / "pseudo_anomalies.png"
    assert any(str(sheet) in line for line in caplog.messages)
    shown = cv2.imread(str(sheet))
    assert shown is not None
    # One row for each held-out image. The good images are grey except for their noise.
    held_out = load_images(
        [Sample(tmp_path / "images" / name, label=0) for name in run.record.parts["images"].holdout],
        ModelSize(64, 64),
    )
    rows = shown.shape[0] // len(held_out.samples)
    good, disturbed, _ = np.split(shown[:rows], 3, axis=1)
    assert np.ptp(good.astype(int), axis=2).max() < 25
    assert np.ptp(disturbed.astype(int), axis=2).max() > 30
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["textures"] == str(textures)
    # A finished run does not need the textures.
    textures.joinpath("green.png").unlink()
    assert isinstance(run.load_model(), Disturbed)


def test_procedural_textures_need_no_folder(config, tmp_path):
    train_run(replace(config, textures="procedural"), tmp_path / "run", cpu())
    assert (tmp_path / "run" / "pseudo_anomalies.png").is_file()


def test_a_method_without_pseudo_anomalies_has_no_such_image(config, tmp_path):
    plain = replace(config, method="template", textures="procedural")
    train_run(plain, tmp_path / "run", cpu())
    assert not (tmp_path / "run" / "pseudo_anomalies.png").exists()


def test_textures_for_a_method_without_pseudo_anomalies_are_refused(config, textures, tmp_path):
    with pytest.raises(InputError) as caught:
        train_run(replace(config, method="template"), tmp_path / "run", cpu())
    assert f"--textures {textures}" in caught.value.what
    assert "template" in caught.value.what
    assert "--method" in caught.value.hint
    assert "disturbed" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_folder_without_textures_is_refused_before_anything_is_written(config, tmp_path):
    with pytest.raises(DataError) as caught:
        train_run(config, tmp_path / "run", cpu())
    assert str(tmp_path / "textures") in str(caught.value)
    assert not (tmp_path / "run").exists()
