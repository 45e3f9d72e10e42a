"""The runner of examples/cpp is built, and decides as edgead predict does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgead.bundle import Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.cli.main import app
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.golden_answers import golden_of_model, verification_of
from tests.helpers.toy_graph import toy_file, toy_images

SOURCE = Path(__file__).parents[2] / "examples/cpp"
HEADERS = {
    "png.h": "libpng-dev",
    "nlohmann/json.hpp": "nlohmann-json3-dev",
    "opencv4/opencv2/imgproc.hpp": "libopencv-imgproc-dev",
    "onnxruntime/onnxruntime_cxx_api.h": "libonnxruntime-dev",
}
# The whole image, a region of interest, and each way to the model's size.
VIEWS = (
    View(),
    View(roi=((5, 4), (35, 4), (35, 27), (5, 27))),
    View(fit="pad"),
    View(fit="crop", roi=((3, 2), (3, 29), (40, 29), (40, 2))),
)
# Sizes that shrink, grow, or do both, by whole factors and others; the model takes 32 x 64.
SIZES = ((32, 64), (64, 128), (33, 97), (240, 320), (30, 41), (101, 50))
IMAGES = 25


def missing_parts() -> list[str]:
    """Names of the packages of Debian that the runner needs and this machine lacks."""
    folders = [Path("/usr/include"), Path("/usr/local/include")]
    lacking = [name for name in ("cmake", "g++") if shutil.which(name) is None]
    return lacking + [
        package
        for header, package in HEADERS.items()
        if not any((folder / header).is_file() for folder in folders)
    ]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lacking = missing_parts()
    if lacking:
        pytest.skip(f"examples/cpp needs {' '.join(lacking)}")
    work = tmp_path_factory.mktemp("cpp")
    # The library of the Python package, so that both runners are of one version.
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if len(libraries) != 1:
        pytest.skip("the package onnxruntime has no shared library")
    (work / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (work / "lib" / name).symlink_to(libraries[0])
    environment = {**os.environ, "CMAKE_PREFIX_PATH": str(work)}
    configure = ["cmake", "-S", str(SOURCE), "-B", str(work / "build"), "-D", "CMAKE_BUILD_TYPE=Debug"]
    for command in ([*configure, "-D", "CMAKE_CXX_FLAGS=-Werror"], ["cmake", "--build", str(work / "build")]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return work / "build/run_bundle"


def write_images(folder: Path) -> list[Path]:
    """Smooth images of several brightnesses, with a bright spot in some."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    files = []
    for number in range(IMAGES):
        height, width = SIZES[number % len(SIZES)]
        image = rng.integers(0, 120, (height, width, 3), np.uint8)
        if number % 3 == 0:
            image[height // 3 : height // 2, width // 3 : width // 2] += rng.integers(40, 130, dtype=np.uint8)
        files.append(folder / f"{number:02}.png")
        cv2.imwrite(str(files[-1]), image if number % 4 else image[..., 0])
    return files


def write_toy_bundle(path: Path, view: View) -> Path:
    """Write a bundle of a graph with convolutions, and a threshold among the scores of `write_images`."""
    model, images = toy_file(), toy_images(1)
    manifest = Manifest(
        method="rd",
        teacher="none",
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=ModelSize(32, 64),
        view=view,
        thresholds={"toy": Threshold(1.126, 0.01, 0.95, 0.95, 299, 299)},
        training={},
        verification=verification_of("toy"),
        verified=True,
        verified_on={},
    )
    golden = golden_bytes(golden_of_model(model, images))
    return write_bundle(path, manifest, {"model.onnx": model, "golden.npz": golden}).path


def predicted(bundle: Path, images: Path, out: Path) -> dict[str, dict[str, float]]:
    """What edgead predict says of each image."""
    done = CliRunner().invoke(app, ["predict", str(bundle), str(images), "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    return {Path(row["image"]).name: row for row in rows}


def test_a_hundred_images_get_equal_verdicts(runner: Path, tmp_path: Path):
    files = write_images(tmp_path / "images")
    verdicts = []
    for number, view in enumerate(VIEWS):
        bundle = write_toy_bundle(tmp_path / f"bundle-{number}", view)
        expected = predicted(bundle, tmp_path / "images", tmp_path / f"out-{number}")
        done = subprocess.run([runner, bundle, *files], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split(" ", 3) for line in done.stdout.splitlines()]
        assert [Path(line[3]) for line in lines] == files
        for verdict, score, used, path in lines:
            row = expected[Path(path).name]
            assert abs(float(score) - row["anomaly_score"]) <= 1e-4
            assert (verdict == "anomalous") == row["is_anomalous"]
            assert float(used) == row["threshold"]
            verdicts.append(verdict)
    assert len(verdicts) == 100
    assert min(verdicts.count("good"), verdicts.count("anomalous")) >= 20


def test_an_image_that_cannot_be_scored_is_an_error_and_the_others_get_a_verdict(
    runner: Path, tmp_path: Path
):
    bundle = write_brightness_bundle(
        tmp_path / "bundle", ModelSize(32, 64), Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)
    )
    image = np.full((32, 64, 3), 90, np.uint8)
    paths = {name: tmp_path / f"{name}.png" for name in ("good", "cut", "deep", "opacity", "text", "absent")}
    cv2.imwrite(str(paths["good"]), np.random.default_rng(0).integers(0, 90, image.shape, np.uint8))
    content = paths["good"].read_bytes()
    paths["cut"].write_bytes(content[: len(content) // 2])
    paths["text"].write_text("a note")
    cv2.imwrite(str(paths["deep"]), image.astype(np.uint16))
    cv2.imwrite(str(paths["opacity"]), np.dstack([image, image[..., 0]]))
    done = subprocess.run([runner, bundle, *paths.values()], capture_output=True, text=True)
    assert done.returncode == 5
    assert [line.split()[3] for line in done.stdout.splitlines()] == [str(paths["good"])]
    assert [line.partition(".png")[0] for line in done.stderr.splitlines()] == [
        f"error: {tmp_path / name}" for name in ("cut", "deep", "opacity", "text", "absent")
    ]


@pytest.mark.parametrize(
    "view",
    [View(overlap=8), View(fit="turn"), View(roi=((0, 0), (20, 0), (10, 20)))],
    ids=["tiles", "turned", "polygon"],
)
def test_what_the_runner_does_not_do_is_refused(runner: Path, tmp_path: Path, view: View):
    bundle = write_brightness_bundle(
        tmp_path / "bundle", ModelSize(32, 64), Threshold(0.5, 0.01, 0.95, 0.95, 299, 299), view=view
    )
    done = subprocess.run([runner, bundle, "absent.png"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


def test_a_part_is_named_if_there_are_several(runner: Path, tmp_path: Path):
    thresholds = {
        name: Threshold(value, 0.01, 0.95, 0.95, 299, 299) for name, value in (("nut", 0.1), ("bolt", 0.9))
    }
    bundle = write_brightness_bundle(tmp_path / "bundle", ModelSize(32, 64), thresholds)
    cv2.imwrite(str(tmp_path / "image.png"), np.full((32, 64, 3), 120, np.uint8))
    answers = {}
    for part in ("nut", "bolt", "screw", ""):
        option = ["--part", part] if part else []
        done = subprocess.run(
            [runner, bundle, *option, tmp_path / "image.png"], capture_output=True, text=True
        )
        answers[part] = done.returncode, done.stdout.partition(" ")[0]
    assert answers == {"nut": (0, "anomalous"), "bolt": (0, "good"), "screw": (1, ""), "": (1, "")}


def test_the_runner_is_short():
    assert len((SOURCE / "run_bundle.cpp").read_text().splitlines()) < 250
