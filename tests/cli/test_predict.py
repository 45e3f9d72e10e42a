"""`edgead predict` in this process, with a model whose map is the brightness of the image.

The expected numbers come from Pillow, NumPy and SciPy; results are read with csv, json, tifffile and Pillow.
"""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from edgead.bundle import open_bundle
from edgead.errors import IncompleteError, InputError
from edgead.files.lock import exclusive
from edgead.files.progress import ScoringState, state_of
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime import open_session
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.command_line import files_in, run_main, the_error
from tests.helpers.stream_parts import break_frames, textured, write_video
from tests.test_imports import BLOCK

SIZE = ModelSize(32, 64)
VALUE = 0.5
THRESHOLD = Threshold(VALUE, 0.01, 0.95, 0.96, 320, 299)
KINDS = "overlay,map,mask,heatmap"


def spots(seed: int, height: int = SIZE.height_px, width: int = SIZE.width_px) -> np.ndarray:
    """A dark image with a few bright rectangles, or with none."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (height, width, 3), np.uint8)
    for _ in range(seed % 4):
        top, left = random.integers(0, height - 8), random.integers(0, width - 8)
        image[top : top + random.integers(3, 8), left : left + random.integers(3, 8)] = random.integers(
            150, 255
        )
    return image


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_brightness_bundle(tmp_path / "bundle", SIZE, THRESHOLD)
    for seed in range(11):
        write(tmp_path / f"parts/{'good' if seed % 4 == 0 else 'spots'}/{seed:03d}.png", spots(seed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*arguments: str, code: int = 0) -> None:
    assert run_main("predict", *arguments) == code


def table(out: str = "out") -> list[dict[str, str]]:
    with open(Path(out) / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / "predictions.jsonl").read_text().splitlines()]


def brightness(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float64).mean(axis=2) / 255


@pytest.mark.usefixtures("world")
def test_every_image_has_a_row_with_score_share_verdict_and_regions() -> None:
    predict("bundle", "parts", "--recursive", "--out", "out")
    files = sorted(path.as_posix() for path in Path("parts").glob("*/*.png"))
    assert [row["image"] for row in table()] == [line["image"] for line in lines()] == files
    several = 0
    for row, line in zip(table(), lines(), strict=True):
        expected = brightness(row["image"])
        assert float(row["anomaly_score"]) == pytest.approx(expected.max(), abs=1e-6)
        assert float(row["share_of_threshold"]) == pytest.approx(expected.max() / VALUE, abs=1e-5)
        assert (row["threshold"], row["threshold_source"], row["part"]) == ("0.5", "edgead build", "washer")
        assert row["verdict"] == ("anomalous" if expected.max() > VALUE else "good")
        assert (row["frame"], row["error"]) == ("", "")
        labels, count = ndimage.label(expected > VALUE, np.ones((3, 3)))
        several += count > 1
        assert int(row["regions"]) == len(line["regions"]) == count
        areas = np.bincount(labels.ravel())[1:]
        assert sorted(region["area_px"] for region in line["regions"]) == sorted(areas)
        if count:
            label = 1 + int(areas.argmax())
            assert int(row["largest_area_px"]) == areas.max()
            if (areas == areas.max()).sum() == 1:
                down, across = ndimage.find_objects(labels)[label - 1]
                box = [int(row[f"largest_{name}_px"]) for name in ("x", "y", "width", "height")]
                assert box == [across.start, down.start, across.stop - across.start, down.stop - down.start]
        else:
            assert row["largest_area_px"] == ""
        assert line["is_anomalous"] is (row["verdict"] == "anomalous")
        assert line["anomaly_score"] == float(row["anomaly_score"])
    assert several


@pytest.mark.usefixtures("world")
def test_the_summary_counts_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    anomalous = sum(brightness(path).max() > VALUE for path in Path("parts").glob("*/*.png"))
    assert 0 < anomalous < 11
    predict("bundle", "parts", "--recursive", "--out", "out")
    words = capsys.readouterr().out.split()
    assert words[1:6] == ["11:", str(11 - anomalous), "good,", str(anomalous), "anomalous"]


@pytest.mark.usefixtures("world")
def test_maps_are_those_of_the_session_in_the_layout_of_the_official_evaluation(world: Path) -> None:
    size = (96, 160)
    for seed in range(9):
        write(world / f"screw/test/{'good' if seed < 3 else 'dent'}/{seed:03d}.png", spots(seed, *size))
    predict("bundle", "screw/test", "--recursive", "--out", "out", "--save", "map")
    with open_session(open_bundle("bundle")) as session:
        for image in sorted(Path("screw/test").glob("*/*.png")):
            # As the official evaluation finds the map of an image: by the path without its suffix.
            stem = Path("out/maps") / image.with_suffix("")
            (file,) = [stem.with_suffix(end) for end in (".tif", ".tiff") if stem.with_suffix(end).exists()]
            saved = tifffile.imread(file)
            assert (saved.shape, saved.dtype) == (size, np.float32)
            batch = batch_from_images([np.asarray(Image.open(image))], SIZE)
            (own,) = session.infer(batch).anomaly_map[:, 0]
            enlarged = Image.fromarray(own).resize(size[::-1], Image.Resampling.BILINEAR)
            np.testing.assert_allclose(saved, np.asarray(enlarged), atol=1e-6)


@pytest.mark.usefixtures("world")
def test_maps_of_the_models_size_are_equal_to_the_sessions_in_every_bit() -> None:
    predict("bundle", "parts", "--recursive", "--out", "out", "--save", "map")
    files = sorted(Path("parts").glob("*/*.png"))
    with open_session(open_bundle("bundle")) as session:
        for start in range(0, len(files), 8):
            batch = np.stack([np.asarray(Image.open(file)) for file in files[start : start + 8]])
            maps = session.infer(batch).anomaly_map[:, 0]
            for file, expected in zip(files[start : start + 8], maps, strict=True):
                saved = tifffile.imread(Path("out/maps") / file.with_suffix(".tiff"))
                np.testing.assert_array_equal(saved, expected)


def test_masks_overlays_and_heat_maps_have_the_size_of_the_image(world: Path) -> None:
    defective = spots(0, 96, 160)
    defective[30:70, 40:100] = 230
    image = write(world / "large/a.png", defective)
    predict("bundle", "large/a.png", "--out", "out", "--save", KINDS)
    saved = tifffile.imread("out/maps/large/a.tiff")
    mask = np.asarray(Image.open("out/masks/large/a.png"))
    np.testing.assert_array_equal(mask, np.where(saved.astype(np.float64) > VALUE, 255, 0))
    overlay = np.asarray(Image.open("out/overlays/large/a.png")).astype(int)
    heat = np.asarray(Image.open("out/heatmaps/large/a.png")).astype(int)
    assert overlay.shape == heat.shape == (96, 160, 3)
    pixels = np.asarray(Image.open(image)).astype(int)
    # Half of the threshold or less has no colour, and the defect glows: red is its largest channel.
    low = ndimage.maximum_filter(saved, 5) < 0.45 * VALUE
    assert low.any()
    np.testing.assert_allclose(overlay[low], pixels[low], atol=1)
    assert heat[low].max() <= 1
    inside = ndimage.binary_erosion(mask > 0, iterations=3)
    assert inside.any()
    assert (heat[inside][:, 0] > heat[inside][:, 2]).all()


@pytest.mark.usefixtures("world")
def test_only_the_kinds_that_are_asked_for_are_saved() -> None:
    predict("bundle", "parts/good", "--out", "out", "--save", "mask,overlay")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "masks", "overlays", "predict.json", "predictions.csv", "predictions.jsonl",
    ]  # fmt: skip


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("kinds", ["image", "map,", "map,,mask", "MAP"])
def test_an_unknown_kind_is_a_usage_error(kinds: str) -> None:
    predict("bundle", "parts/good", "--out", "out", "--save", kinds, code=2)
    assert not Path("out").exists()


@pytest.mark.usefixtures("world")
def test_a_given_threshold_decides_and_is_named() -> None:
    predict("bundle", "parts", "--recursive", "--out", "out", "--threshold", "0.1")
    assert {row["threshold_source"] for row in table()} == {"given"}
    assert {row["threshold"] for row in table()} == {"0.1"}
    assert {row["verdict"] for row in table()} == {"anomalous"}


@pytest.mark.usefixtures("world")
def test_a_threshold_of_edgead_threshold_is_named() -> None:
    assert run_main("threshold", "bundle", "--value", "0.25") == 0
    predict("bundle", "parts/good", "--out", "out")
    assert {(row["threshold"], row["threshold_source"]) for row in table()} == {
        ("0.25", "edgead threshold --value 0.25")
    }


def test_a_part_is_chosen_by_its_name(world: Path) -> None:
    thresholds = {"nut": THRESHOLD, "bolt": Threshold(0.05, 0.01, 0.95, 0.95, 299, 299)}
    write_brightness_bundle(world / "both", SIZE, thresholds)
    predict("both", "parts/good", "--out", "out", "--part", "bolt")
    assert {(row["part"], row["threshold"]) for row in table()} == {("bolt", "0.05")}
    predict("both", "parts/good", "--out", "other", code=InputError("").exit_code)
    assert not Path("other").exists()


def test_a_broken_image_is_named_and_the_others_are_scored(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (world / "parts/spots/000.png").write_text("a note, not an image\n")
    (world / "parts/spots/011.tif").write_bytes(b"")
    predict("bundle", "parts", "--recursive", "--out", "out", "--save", KINDS, code=5)
    error = the_error(capsys.readouterr().err)
    assert {"2", "13", "parts/spots/000.png:"} <= set(error.split())
    failed = [row for row in table() if row["error"]]
    assert [row["image"] for row in failed] == ["parts/spots/000.png", "parts/spots/011.tif"]
    assert {(row["verdict"], row["anomaly_score"]) for row in failed} == {("", "")}
    assert len(table()) == 13
    for row in table():
        if not row["error"]:
            assert float(row["anomaly_score"]) == pytest.approx(brightness(row["image"]).max(), abs=1e-6)
    maps = {
        path.relative_to("out/maps").with_suffix(".png").as_posix() for path in Path("out").rglob("*.tiff")
    }
    assert maps == {row["image"] for row in table() if not row["error"]}
    # A second run says the same.
    predict(
        "bundle", "parts", "--recursive", "--out", "out", "--save", KINDS, code=IncompleteError("").exit_code
    )


@pytest.mark.usefixtures("world")
def test_frames_of_a_video_are_rows_between_the_images_of_other_arguments() -> None:
    levels = [40, 200, 60, 80, 100, 220, 120, 10, 20, 30]
    write_video(Path("line.mkv"), [textured(level) for level in levels])
    Path("text.mp4").write_text("a note, not a video\n")
    predict(
        "bundle",
        "parts/good",
        "line.mkv",
        "text.mp4",
        "parts/spots",
        "--out",
        "out",
        "--save",
        "mask",
        code=5,
    )
    names = [(row["image"], row["frame"]) for row in table()]
    good = [(path.as_posix(), "") for path in sorted(Path("parts/good").iterdir())]
    spotted = [(path.as_posix(), "") for path in sorted(Path("parts/spots").iterdir())]
    frames = [("line.mkv", str(index)) for index in range(10)]
    assert names == [*good, *frames, ("text.mp4", ""), *spotted]
    scores = [255 * float(row["anomaly_score"]) for row in table() if row["frame"]]
    # A motion JPEG, and a texture of 8 levels above it.
    assert scores == pytest.approx(levels, abs=12)
    masks = sorted(path.name for path in Path("out/masks/line.mkv").iterdir())
    assert masks == [f"{index:08d}.png" for index in range(10)]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("broken", [0, 4, 10])
def test_a_broken_frame_of_a_video_is_named(broken: int) -> None:
    break_frames(write_video(Path("line.mkv"), [textured(20 * level) for level in range(11)]), broken)
    predict("bundle", "line.mkv", "--out", "out", "--save", "map", code=5)
    assert [row["frame"] for row in table()] == [str(index) for index in range(11)]
    assert [row["frame"] for row in table() if row["error"]] == [str(broken)]
    assert [255 * float(row["anomaly_score"] or "nan") for row in table()] == pytest.approx(
        [float("nan") if index == broken else 20 * index + 8 for index in range(11)], abs=12, nan_ok=True
    )


class States(logging.Handler):
    """Keeps the states of a scoring."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[ScoringState] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(state := state_of(record), ScoringState):
            self.states.append(state)


@pytest.mark.usefixtures("world")
def test_a_video_without_a_number_of_frames_ends_its_count_once() -> None:
    frames = [cv2.imencode(".jpg", textured(level))[1].tobytes() for level in range(41)]
    Path("line.mjpeg").write_bytes(b"".join(frames))
    handler, logger = States(), logging.getLogger("edgead")
    logger.addHandler(handler)
    predict("bundle", "line.mjpeg", "--out", "out")
    logger.removeHandler(handler)
    *before, last = handler.states
    assert (last.done, last.total) == (41, 41)
    assert len(before) == 5
    assert all(state.done < state.total for state in before)


def test_a_dark_first_image_is_warned_of_once(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dark/0.png", "dark/1.png"):
        write(world / name, np.full((32, 64, 3), 9, np.uint8))
    predict("bundle", "dark", "--out", "out", "--save", "overlay")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "dark/0.png" in warning


@pytest.mark.usefixtures("world")
def test_a_finished_prediction_is_left_alone() -> None:
    predict("bundle", "parts", "--recursive", "--out", "out", "--save", "map")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    predict("bundle", "parts", "--recursive", "--out", "out", "--save", "map")
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before


def test_names_that_are_no_unicode_or_too_long_for_a_suffix(world: Path) -> None:
    name = b'gr\xfcn, "1".png'.decode("utf-8", "surrogateescape")
    write(world / "parts/good" / ("x" * 251 + ".png"), spots(1))
    (world / "parts/good/000.png").rename(world / "parts/good" / name)
    predict("bundle", "parts/good", "--out", "out", "--save", "map")
    assert 'parts/good/gr\\xfcn, "1".png' in [row["image"] for row in table()]
    assert len(list(Path("out/maps/parts/good").iterdir())) == len(table()) == 4


@pytest.mark.parametrize("name", ["a\rb.png", "a\nb.png", 'a"b.png', "=a,b.png"])
def test_no_name_of_a_file_ends_a_row(world: Path, name: str) -> None:
    write(world / "odd" / name, spots(1))
    predict("bundle", "odd", "--out", "out")
    (row,) = table()
    assert (row["image"], row["error"]) == (f"odd/{name}", "")
    assert b"\r\n" not in Path("out/predictions.csv").read_bytes()


def test_a_device_without_the_training_packages_predicts(world: Path) -> None:
    code = BLOCK + "HEAVY.remove('onnxruntime')\nfrom edgead.cli.main import main\nmain()"
    command = ["predict", "bundle", "parts", "--recursive", "--out", "out", "--save", KINDS]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=world, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(table()) == 11


REFUSED = {
    "a threshold of NaN": "predict bundle parts/good --out new --threshold nan",
    "a threshold of 0": "predict bundle parts/good --out new --threshold 0",
    "a folder without an image": "predict bundle bundle --out new",
    "a folder with images below only": "predict bundle parts --out new",
    "a missing image": "predict bundle gone.png --out new",
    "a pattern without a match": "predict bundle parts/*.jpg --out new",
    "an unknown part": "predict bundle parts/good --out new --part lid",
    "no model": "predict parts parts/good --out new",
    "other files in out": "predict bundle parts/good --out mine",
    "a file as out": "predict bundle parts/good --out mine/notes.txt",
    "another record in out": "predict bundle parts/good --out other",
    "other images": "predict bundle parts/spots --out out",
    "another threshold": "predict bundle parts/good --out out --threshold 0.3",
    "another model": "predict brighter parts/good --out out",
    "other files to save": "predict bundle parts/good --out out --save map",
    "two images with one map": "predict bundle parts/good good.jpg good.png --out new --save map",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    world: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_brightness_bundle(world / "brighter", SIZE, THRESHOLD, gain=2.0)
    for name in ("good.jpg", "good.png"):
        write(world / name, spots(0))
    (world / "mine").mkdir()
    (world / "mine/notes.txt").write_text("mine\n")
    (world / "other").mkdir()
    (world / "other/predict.json").write_text('{"state": "finished"}\n')
    predict("bundle", "parts/good", "--out", "out")
    before = files_in(world)
    capsys.readouterr()
    assert run_main(*line.split()) == InputError("").exit_code
    the_error(capsys.readouterr().err)
    assert files_in(world) == before


def test_without_maps_two_images_may_have_one_stem(world: Path) -> None:
    for name in ("good.jpg", "good.png"):
        write(world / name, spots(0))
    predict("bundle", "good.jpg", "good.png", "--out", "out")
    assert [row["image"] for row in table()] == ["good.jpg", "good.png"]


@pytest.mark.usefixtures("world")
def test_a_second_command_on_one_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive(Path("out")):
        predict("bundle", "parts/good", "--out", "out", code=InputError("").exit_code)
    the_error(capsys.readouterr().err)
