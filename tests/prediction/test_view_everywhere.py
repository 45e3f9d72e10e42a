"""One view of a bundle gives the same verdicts in evaluation, prediction, Python and the stream."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import edgead
from edgead.cli.main import app
from edgead.errors import ImageError, IncompleteError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View, ignore_text, read_roi
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle

SIZE = ModelSize(64, 64)
LEVEL = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)
HEIGHT, WIDTH = 150, 200
IGNORED = np.zeros((HEIGHT, WIDTH), bool)
IGNORED[60:90, 100:140] = True
VIEWS = {
    "roi": View("pad", read_roi("20,10 180,10 180,140 20,140"), ignore_text(IGNORED)),
    "tiles": View(roi=read_roi("20,10,160,130"), ignore=ignore_text(IGNORED), overlap=16),
    "crop": View("crop", ignore=ignore_text(IGNORED)),
}
# Place of a bright spot of 8 x 8 pixels, and whether it is inspected by each of the views.
SPOTS = {"middle": (60, 100), "ignored": (70, 115), "outside": (2, 100)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A dataset of dark images: a good one, and one defect with its mask for each spot."""
    root = tmp_path_factory.mktemp("views") / "washer"
    for folder in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (root / folder).mkdir(parents=True)
    plain = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    Image.fromarray(plain).save(root / "train/good/0.png")
    Image.fromarray(plain).save(root / "test/good/0.png")
    for name, (y, x) in SPOTS.items():
        image, mask = plain.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
        image[y : y + 8, x - 40 : x - 32] = 250 if name == "middle" else 30
        image[y : y + 8, x : x + 8] = 30 if name == "middle" else 250
        mask[image[..., 0] > 200] = 255
        Image.fromarray(image).save(root / f"test/spot/{name}.png")
        Image.fromarray(mask).save(root / f"ground_truth/spot/{name}_mask.png")
    return root


@pytest.mark.parametrize("name", VIEWS)
def test_all_commands_decide_alike(name, data, tmp_path):
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, LEVEL, view=VIEWS[name])
    files = sorted((data / "test").rglob("*.png"))
    run = CliRunner()
    assert run.invoke(app, ["eval", str(bundle), str(data), "--out", str(tmp_path / "report")]).exit_code == 0
    results = json.loads((tmp_path / "report/results.json").read_text())
    evaluated = {Path(one["path"]): (one["score"], one["is_anomalous"]) for one in results["images"]}
    out = tmp_path / "out"
    command = [
        "predict",
        str(bundle),
        str(data / "test"),
        "--recursive",
        "--out",
        str(out),
        "--save",
        "map,overlay",
    ]
    assert run.invoke(app, command).exit_code == 0
    with open(out / "predictions.csv", newline="") as file:
        predicted = {
            Path(row["image"]): (float(row["anomaly_score"]), row["verdict"] == "anomalous")
            for row in csv.DictReader(file)
        }
    streamed = {}
    for file in files:
        single = tmp_path / "frames" / file.stem / file.parent.name
        single.mkdir(parents=True)
        (single / "0.png").write_bytes(file.read_bytes())
        lines = single.parent / "verdicts.jsonl"
        edgead.stream(bundle, single, [f"jsonl:{lines}"])
        (verdict,) = [
            json.loads(line) for line in lines.read_text().splitlines() if '"anomaly_score"' in line
        ]
        streamed[file] = verdict["anomaly_score"], verdict["is_anomalous"]
    with edgead.load(bundle) as model:
        called = {file: model.predict(file, full_size=True) for file in files}
    found = {file: (result.anomaly_score, result.is_anomalous) for file, result in called.items()}
    assert found == {file: evaluated[file] for file in files}
    assert found == {file: predicted[file] for file in files}
    assert found == streamed
    anomalous = {file.stem for file in files if found[file][1]}
    assert anomalous == ({"middle", "outside"} if name == "crop" else {"middle"})
    # Maps are on the image: bright where the spot is, 0 where the image is not inspected.
    (middle,) = [file for file in files if file.stem == "middle"]
    saved = tifffile.imread(next(out.rglob("middle.tiff")))
    np.testing.assert_array_equal(saved, called[middle].anomaly_map)
    assert saved.shape == (HEIGHT, WIDTH)
    assert saved[60:68, 60:68].mean() > 0.5
    assert saved[72:80, 112:128].max() == 0.0
    region = called[middle].regions[0]
    assert abs(region.x_px - 60) <= 4
    assert abs(region.y_px - 60) <= 4
    assert cv2.imread(str(next(out.rglob("overlays/**/middle.png")))).shape[:2] == (HEIGHT, WIDTH)
    # Defects in ignored pixels are no missed pixels.
    if name != "crop":
        assert results["evaluation"]["pixel_auroc"] > 0.99


MISFITS = {
    "region outside": (View(roi=read_roi("20,10,160,130")), (100, 150)),
    "tile too large": (View(overlap=16), (60, 200)),
    "mask of another size": (View(ignore=ignore_text(IGNORED)), (HEIGHT, WIDTH + 1)),
    "all ignored": (View(roi=read_roi("105,65,20,20"), ignore=ignore_text(IGNORED)), (HEIGHT, WIDTH)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_image_that_the_view_does_not_fit_is_one_line_that_names_the_file(name, data, tmp_path):
    view, shape = MISFITS[name]
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, LEVEL, view=view)
    copy = Path(shutil.copytree(data, tmp_path / "washer"))
    file = copy / "test/good/0.png"
    Image.fromarray(np.arange(shape[0] * shape[1] * 3, dtype=np.uint8).reshape(*shape, 3)).save(file)
    lines = tmp_path / "lines"
    for command in (
        ["eval", str(bundle), str(copy)],
        ["threshold", str(bundle), "--good", str(file.parent)],
        ["stream", str(bundle), "--source", str(file.parent), "--sink", f"jsonl:{lines}"],
    ):
        error = CliRunner().invoke(app, command).exception
        assert isinstance(error, ImageError), command
        assert str(file.parent) in str(error), command
        assert "\n" not in str(error), command
    assert "anomaly_score" not in lines.read_text()
    result = CliRunner().invoke(app, ["predict", str(bundle), str(file), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, IncompleteError)
    with open(tmp_path / "out/predictions.csv", newline="") as table:
        (row,) = csv.DictReader(table)
    assert row["error"]
    assert "\n" not in row["error"]
    assert not row["verdict"]
    with edgead.load(bundle) as model, pytest.raises(ImageError):
        model.predict(file)


def test_an_image_that_the_view_does_not_fit_changes_no_other(data, tmp_path):
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, LEVEL, view=VIEWS["tiles"])
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(small)
    command = [
        "predict",
        str(bundle),
        str(small),
        str(data / "test/good/0.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert isinstance(CliRunner().invoke(app, command).exception, IncompleteError)
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["error"]
    assert rows[1]["verdict"] == "good"


@pytest.mark.parametrize(("view", "warnings"), [(WHOLE, 1), (View("pad"), 0), (View("crop"), 0)])
def test_every_command_says_that_images_are_squeezed(view, warnings, data, tmp_path, caplog):
    bundle = write_brightness_bundle(tmp_path / "bundle", SIZE, LEVEL, view=view)
    good = data / "test/good"
    for command in (
        ["eval", str(bundle), str(data)],
        ["predict", str(bundle), str(good), "--out", str(tmp_path / "out")],
        ["stream", str(bundle), "--source", str(good), "--sink", f"jsonl:{tmp_path / 'lines'}"],
    ):
        caplog.clear()
        CliRunner().invoke(app, command)
        squeezed = [record for record in caplog.records if f"{WIDTH}x{HEIGHT}" in record.getMessage()]
        assert len(squeezed) == warnings, command
