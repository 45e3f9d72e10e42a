"""`edgead threshold` in this process, with a model whose score is the brightness of the brightest pixel."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgead.bundle import open_bundle
from edgead.bundle.directory import MANIFEST
from edgead.cli.main import app
from edgead.data.images import image_hash
from edgead.errors import EdgeadError, InputError
from edgead.files.lock import exclusive
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle

SIDE = 32
BUILT = Threshold(0.5, 0.01, 0.95, 1 - 0.99**9, 9, 299)
GOOD_GREYS = (10, 20, 30, 60)
DEFECT_GREYS = (40, 50, 80)


def write_greys(folder: Path, greys: tuple[int, ...]) -> Path:
    folder.mkdir(parents=True)
    for grey in greys:
        cv2.imwrite(str(folder / f"{grey:03d}.png"), np.full((SIDE, SIDE, 3), grey, np.uint8))
    return folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    held_out = {f"held{number}": (5 + number) / 255 for number in range(9)}
    held_out[image_hash(np.full((SIDE, SIDE, 3), 10, np.uint8))] = 10 / 255
    write_brightness_bundle(tmp_path / "bundle", ModelSize(SIDE, SIDE), BUILT, held_out=held_out)
    write_greys(tmp_path / "good", GOOD_GREYS)
    write_greys(tmp_path / "defects" / "dent", DEFECT_GREYS)
    write_greys(tmp_path / "one", (90,))
    (tmp_path / "none").mkdir()
    write_greys(tmp_path / "data" / "train" / "good", (1, 2, 200))
    write_greys(tmp_path / "data" / "test" / "good", GOOD_GREYS)
    write_greys(tmp_path / "data" / "test" / "dent", DEFECT_GREYS)
    shutil.copytree(tmp_path / "data", tmp_path / "half", ignore=shutil.ignore_patterns("dent"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> str:
    result = CliRunner().invoke(app, ["threshold", *line.split()], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def now(bundle: str = "bundle", part: str = "washer") -> Threshold:
    return open_bundle(bundle).manifest.thresholds[part]


def test_without_options_it_shows_the_threshold_and_changes_nothing(world):
    before = (world / "bundle" / MANIFEST).read_bytes()
    shown = run("bundle")
    assert "0.5" in shown
    assert "edgead build" in shown
    # 9 images stand behind it, and 299 would be enough.
    assert "9 held-out" in shown
    assert "299" in shown
    assert (world / "bundle" / MANIFEST).read_bytes() == before


def test_good_images_alone_set_the_threshold_for_the_budget_of_the_build(world):
    shown = run("bundle --good good")
    # Four images are too few for 0.01, so the highest score is the threshold.
    assert now().value == pytest.approx(60 / 255)
    assert (now().false_alarm_rate, now().confidence, now().n_normal) == (0.01, 0.95, 4)
    assert now().achieved_confidence == pytest.approx(1 - 0.99**4)
    assert "4 of good parts" in shown


def test_a_budget_that_the_images_support_is_kept(world):
    run("bundle --good good --false-alarm-rate 0.6 --confidence 0.5")
    # With 4 images, P(at most 1 above) at 0.6 is 0.4^4 + 4 * 0.6 * 0.4^3 = 0.1792, and with 2 above 0.5248.
    # One image above keeps confidence 0.82, two would keep 0.475 only.
    assert now().value == pytest.approx(30 / 255)
    assert now().achieved_confidence == pytest.approx(1 - 0.1792)


def test_join_counts_the_held_out_images_once(world):
    run("bundle --good good --join")
    (change,) = open_bundle("bundle").manifest.changes["washer"]
    # 10 held-out images, one of which is also in the folder.
    assert (change.n_good, change.n_held_out, now().n_normal) == (13, 10, 13)


def test_a_good_image_that_alone_raises_the_threshold_is_named(world, caplog):
    write_greys(world / "many", (*range(10, 34), 60))
    with caplog.at_level("WARNING"):
        run("bundle --good many")
    (named,) = [line for line in caplog.messages if "060.png" in line]
    assert f"{60 / 255:.4g}" in named
    assert f"{33 / 255:.4g}" in named
    # A bundle records no names, so an image of its build is named by its ID.
    caplog.clear()
    write_greys(world / "low", (1, 2, 3))
    with caplog.at_level("INFO"):
        run("bundle --good low --join")
    assert any("held8" in line for line in caplog.messages)


def test_training_images_of_a_cross_fitted_bundle_count_with_their_cross_fitted_scores(world, caplog):
    """The image of grey 60 sets the threshold. The model was trained on it, so its score is too low."""
    held_out = {image_hash(np.full((SIDE, SIDE, 3), 60, np.uint8)): 90 / 255, "other": 0.1}
    write_brightness_bundle(world / "crossed", ModelSize(SIDE, SIDE), BUILT, held_out=held_out, ratio=1.5)
    assert "9 cross-fitted" in run("crossed")
    shown = run("crossed --good good")
    assert now("crossed").value == pytest.approx(90 / 255)
    assert "4 of good parts" in shown
    assert any("1 of the 4" in line for line in caplog.messages)
    shown = run("crossed --good good --join")
    (_, change) = open_bundle("crossed").manifest.changes["washer"]
    assert (change.n_good, change.n_held_out, now("crossed").n_normal) == (5, 2, 5)
    assert "2 cross-fitted, 3 new" in shown
    assert now("crossed").value == pytest.approx(90 / 255)
    run("crossed data --best-f1")
    assert now("crossed").value == pytest.approx(35 / 255)


def test_equal_images_count_once(world):
    shutil.copy(world / "good" / "060.png", world / "good" / "copy.png")
    run("bundle --good good")
    assert now().n_normal == 4


@pytest.mark.parametrize(
    "images", ["data", "--good good --defects defects", "--good good --defects data/test"]
)
def test_labelled_images_print_a_table_and_set_nothing(world, images):
    shown = run(f"bundle {images}")
    assert "4 images of good parts, 3 of defects" in shown
    assert now() == BUILT


@pytest.mark.parametrize(
    ("rule", "grey"),
    [("--best-f1", 35.0), ("--recall 0.6", 45.0), ("--recall 1", 35.0), ("--value 0.25", 63.75)],
)
def test_labelled_images_set_the_threshold_by_a_rule(world, rule, grey):
    run(f"bundle data {rule}")
    assert now().value == pytest.approx(grey / 255)
    assert (now().false_alarm_rate, now().n_normal) == (None, 4)
    (change,) = open_bundle("bundle").manifest.changes["washer"]
    assert (change.n_good, change.n_held_out, change.n_defects) == (4, 0, 3)


def test_a_budget_from_labelled_images_uses_their_good_images(world):
    run("bundle data --false-alarm-rate 0.01")
    assert (now().value, now().n_normal) == (pytest.approx(60 / 255), 4)


def test_a_typed_value_needs_no_images_and_undo_restores_the_build(world):
    before = open_bundle("bundle").manifest
    run("bundle --value 0.25")
    assert now() == Threshold(0.25, None, None, None, 0, None)
    run("bundle --value 0.75")
    run("bundle --undo")
    assert now().value == 0.25
    run("bundle --undo")
    assert open_bundle("bundle").manifest == before


def test_one_part_of_several(world):
    write_brightness_bundle(world / "two", ModelSize(SIDE, SIDE), {"nut": BUILT, "bolt": BUILT})
    run("two --part nut --value 0.25")
    assert (now("two", "nut").value, now("two", "bolt").value) == (0.25, 0.5)
    with pytest.raises(EdgeadError):
        run("two --value 0.25")


BAD = {
    "one defect": "bundle --good good --defects one --best-f1",
    "one good image": "bundle --good one --defects defects",
    "no image of defects": "bundle --good good --defects none",
    "no image of good parts": "bundle --good none",
    "missing folder of defects": "bundle --good good --defects gone",
    "one class": "bundle half --best-f1",
    "not a number": "bundle --value nan",
    "infinite": "bundle --value inf",
    "negative": "bundle --value -1",
    "zero": "bundle --value 0",
    "best F1 without defects": "bundle --good good --best-f1",
    "recall without images": "bundle --recall 0.9",
    "recall above 1": "bundle data --recall 1.5",
    "recall not a number": "bundle data --recall nan",
    "rate without images": "bundle --false-alarm-rate 0.01",
    "rate of 1": "bundle --good good --false-alarm-rate 1",
    "rate of 0": "bundle --good good --false-alarm-rate 0",
    "rate not a number": "bundle --good good --false-alarm-rate nan",
    "confidence of 1": "bundle --good good --confidence 1",
    "two rules": "bundle data --best-f1 --value 0.3",
    "data and good": "bundle data --good good",
    "defects without good": "bundle --defects defects",
    "join without rate": "bundle data --best-f1 --join",
    "confidence without rate": "bundle --value 0.3 --confidence 0.9",
    "undo and value": "bundle --undo --value 0.3",
    "nothing to undo": "bundle --undo",
    "unknown part": "bundle --part nut",
    "no bundle": "good",
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_changes_nothing(world, line):
    before = (world / "bundle" / MANIFEST).read_bytes()
    with pytest.raises(EdgeadError) as caught:
        run(line)
    assert "\n" not in str(caught.value)
    assert (world / "bundle" / MANIFEST).read_bytes() == before


def test_join_needs_recorded_scores(world):
    write_brightness_bundle(world / "bare", ModelSize(SIDE, SIDE), BUILT)
    with pytest.raises(EdgeadError):
        run("bare --good good --join")


def test_broken_images_are_refused_or_skipped(world):
    (world / "good" / "broken.png").write_bytes(b"no image")
    with pytest.raises(EdgeadError):
        run("bundle --good good")
    run("bundle --good good --skip-broken")
    assert now().n_normal == 4


def test_images_are_read_at_the_bit_depth_of_the_bundle(world):
    manifest = replace(open_bundle("bundle").manifest, bit_depth=12)
    (world / "bundle" / MANIFEST).write_text(manifest.to_json())
    (world / "deep").mkdir()
    for level in (256, 512):
        cv2.imwrite(str(world / "deep" / f"{level}.png"), np.full((SIDE, SIDE, 3), level, np.uint16))
    run("bundle --good deep")
    # As a file of 16 bits, the brighter image would have the score 2 / 255.
    assert now().value == pytest.approx(512 / 4095, abs=1 / 255)


def test_a_bundle_that_is_being_written_is_shown_and_not_changed(world):
    with exclusive(world / "bundle"):
        run("bundle")
        with pytest.raises(InputError):
            run("bundle --value 0.25")
    assert now() == BUILT
