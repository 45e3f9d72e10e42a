"""`edgead calibrate` of a bundle, without torch: the file that a build reads, and rejected input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edgead.bundle import Bundle, open_bundle
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.rebuild import rebuild_bundle
from tests.helpers.command_line import run_main, the_error
from tests.helpers.toy_run import PART, ToyRun

pytestmark = pytest.mark.usefixtures("graphs_exported_once")

COMMAND = """
import sys
for name in ("torch", "timm", "torchvision", "onnxsim", "onnxscript"):
    sys.modules[name] = None
from edgead.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), 20)


def write_data(folder: Path, trained_on: int) -> Path:
    """Write the held-out images of the toy run and `trained_on` of its training images."""
    run = ToyRun()
    for name, images in {
        "t": run.training_images(100).images[:trained_on],
        "h": run.holdout_images()[PART].images,
    }.items():
        for index, image in enumerate(images):
            assert cv2.imwrite(str(folder / f"{index:02}{name}.png"), image[..., ::-1])
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def calibrated(exact: Bundle, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibration") / "deep" / "toy.json"
    done = command(
        "calibrate", exact.path, "--data", data, "--out", out, "--calibrate-on", "train",
        "--algorithm", "percentile",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    clipping_limits = json.loads(out.read_text())["clipping_limits"]
    assert done.stdout.splitlines() == [
        f"calibrated   {len(clipping_limits)} tensors on 20 images",
        f"calibration  {out}",
    ]
    assert any("20 images" in line and "percentile" in line for line in done.stderr.splitlines())
    return out


INT8 = ("--precision", "int8", "--calibrate-on", "train", "--algorithm", "percentile")


def test_a_build_reads_the_file_and_does_not_calibrate(
    exact: Bundle, data: Path, calibrated: Path, tmp_path: Path
) -> None:
    before = calibrated.read_bytes()
    done = command("build", exact.path, "--data", data, "--out", tmp_path / "x", *INT8, "--cache", calibrated)
    assert done.returncode == 0, done.stderr
    assert str(calibrated) in done.stderr
    # The line of a calibration names its algorithm.
    assert "percentile" not in done.stderr
    assert calibrated.read_bytes() == before
    bundle = open_bundle(tmp_path / "x")
    assert bundle.file("calibration.json").read_bytes() == before
    assert bundle.manifest.verification["calibration"]["key"] == json.loads(before)["key"]


def test_a_build_that_calibrates_itself_measures_the_same(
    exact: Bundle, data: Path, calibrated: Path, tmp_path: Path
) -> None:
    plan = Plan.parse(
        precision="int8", calibrate_on="train", algorithm="percentile", cache=tmp_path / "own.json"
    )
    rebuild_bundle(exact, [data], tmp_path / "x", plan)
    own, given = (json.loads(file.read_text()) for file in (tmp_path / "own.json", calibrated))
    assert own["key"] == given["key"]
    assert own["clipping_limits"] == pytest.approx(given["clipping_limits"], rel=1e-5)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run_main(*map(str, arguments)) == 1
    return the_error(capsys.readouterr().err)


@pytest.mark.parametrize("options", [("--algorithm", "minmax"), ("--calibrate-on", "mixed")])
def test_a_stale_file_is_refused_and_left_alone(
    options: tuple[str, str],
    exact: Bundle,
    data: Path,
    calibrated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = calibrated.read_bytes()
    # An option is given once.
    place = INT8.index(options[0])
    changed = (*INT8[:place], *options, *INT8[place + 2 :])
    of_build = (*changed, "--cache", calibrated, "--out", tmp_path / "x")
    again = (*changed[2:], "--out", calibrated)
    for arguments in (("build", *of_build), ("calibrate", *again)):
        name, *rest = arguments
        message = refused(capsys, name, exact.path, "--data", data, *rest)
        assert str(calibrated) in message
    assert calibrated.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trained_on", [0, 3])
def test_too_few_images_to_calibrate_on(
    trained_on: int, exact: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    write_data(folder, trained_on)
    message = refused(capsys, "calibrate", exact.path, "--data", folder, "--out", tmp_path / "x.json")
    assert f" {trained_on} " in message
    assert not (tmp_path / "x.json").exists()
    # Calibration on noise needs no images.
    noise = ("--calibrate-on", "noise", "--algorithm", "minmax")
    arguments = ("calibrate", exact.path, "--data", folder, "--out", tmp_path / "x.json", *noise)
    assert run_main(*map(str, arguments)) == 0
    assert json.loads((tmp_path / "x.json").read_text())["images"] == 64


def test_a_directory_is_refused_as_the_file(exact: Bundle, tmp_path: Path) -> None:
    assert (
        run_main("calibrate", str(exact.path), "--data", str(tmp_path / "gone"), "--out", str(tmp_path)) == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_needs_images_and_a_run_has_its_own(
    exact: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "x.json")
    message = refused(capsys, "calibrate", exact.path, *out)
    assert str(exact.path) in message
    assert "--data" in message
    message = refused(capsys, "calibrate", data, "--data", data, *out)
    assert str(data) in message
    assert "--data" in message
    message = refused(capsys, "calibrate", tmp_path / "nowhere", *out)
    assert str(tmp_path / "nowhere") in message
    assert list(tmp_path.iterdir()) == []


def test_an_int8_bundle_is_not_calibrated_again(
    exact: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = rebuild_bundle(exact, [data], tmp_path / "half", Plan(candidate_precisions=("fp16",)))
    message = refused(capsys, "calibrate", half.path, "--data", data, "--out", tmp_path / "x.json")
    assert all(value in message for value in (str(half.path), "fp16", "fp32"))
