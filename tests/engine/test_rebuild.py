"""From a bundle to one of lower precision, with the same validation images and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgead.bundle import Bundle, open_bundle, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.cli.build import build
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating
from edgead.engine.rebuild import rebuild_bundle, recompile_bundle
from edgead.engine.target import find_target
from edgead.errors import BackendError, DataError, InputError, VerificationError
from tests.helpers.tensorrt_rtx_here import needs_no_gpu
from tests.helpers.toy_run import PART, ToyRun

FP16 = Plan(candidate_precisions=("fp16",))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the toy run, those trained on and those held out in one folder, and a broken one."""
    folder, run = tmp_path_factory.mktemp("data"), ToyRun()
    of_split = {"t": run.training_images(100).images, "h": run.holdout_images()[PART].images}
    for name, images in of_split.items():
        for index, image in enumerate(images):
            cv2.imwrite(str(folder / f"{index:02}{name}.png"), image[..., ::-1])
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_bundle_gives_what_its_run_gives(precision: str, exact: Bundle, data: Path, tmp_path: Path) -> None:
    plan = Plan(
        candidate_precisions=(precision,),
        calibrating=Calibrating("mixed", "minmax", tmp_path / "clipping_limits.json"),
    )
    from_run = build_bundle(ToyRun(), tmp_path / "a", plan)
    # The same calibration images in the same order, or its cache would be refused.
    from_bundle = rebuild_bundle(exact, [data], tmp_path / "b", plan)
    assert from_bundle.file("model.onnx").read_bytes() == from_run.file("model.onnx").read_bytes()
    assert from_bundle.manifest.thresholds[PART].value == pytest.approx(
        from_run.manifest.thresholds[PART].value, abs=1e-6
    )
    assert from_bundle.manifest.thresholds[PART].n_normal == 12
    assert from_bundle.manifest.precision == precision
    assert from_bundle.manifest.training == exact.manifest.training
    assert from_bundle.manifest.verification["parts"][PART]["n"] == 24


def test_a_folder_without_the_validation_images_is_refused(exact: Bundle, data: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for file in sorted(data.glob("*.png"))[:9]:
        (some / file.name).write_bytes(file.read_bytes())
    held_out = len(list(some.glob("*h.png")))
    assert 0 < held_out < 12
    with pytest.raises(DataError, match=f"holds {held_out} of the 12 images"):
        rebuild_bundle(exact, [some], tmp_path / "x", FP16)
    for file in some.glob("*h.png"):
        file.unlink()
    with pytest.raises(DataError, match="holds 0 of the 12 images"):
        rebuild_bundle(exact, [some], tmp_path / "x", FP16)
    assert not (tmp_path / "x").exists()


def test_only_a_float32_bundle_becomes_another(exact: Bundle, data: Path, tmp_path: Path) -> None:
    half = rebuild_bundle(exact, [data], tmp_path / "half", FP16)
    with pytest.raises(InputError, match="is fp16, and another precision is made from fp32"):
        rebuild_bundle(half, [data], tmp_path / "x", Plan(candidate_precisions=("int8",)))


def test_a_bundle_that_does_not_say_its_validation_images_is_refused(
    exact: Bundle, data: Path, tmp_path: Path
) -> None:
    manifest = replace(exact.manifest, verification={})
    files = {name: exact.file(name) for name in exact.manifest.files}
    older = write_bundle(tmp_path / "older", manifest, files)
    with pytest.raises(InputError, match="does not say which images"):
        rebuild_bundle(older, [data], tmp_path / "x", FP16)


COMMAND = """
import sys
for name in ("torch", "timm", "torchvision", "onnxsim", "onnxscript"):
    sys.modules[name] = None
from edgead.cli.main import main
main()
"""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "build", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_needs_no_torch(exact: Bundle, data: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "x", tmp_path / "clipping_limits.json"
    done = command(exact.path, "--data", data, "--out", out, "--precision", "int8", "--cache", cache)
    assert done.returncode == 0, done.stderr
    assert "int8 for cpu against onnxruntime fp32" in done.stdout
    manifest = open_bundle(out).manifest
    assert manifest.precision == "int8"
    assert manifest.verification["calibration"]["key"] == json.loads(cache.read_text())["key"]
    golden = open_bundle(out).golden()
    assert np.isfinite(golden.anomaly_map).all()
    refused = command(exact.path, "--out", out, "--precision", "int8")
    assert refused.returncode == 1
    assert "with --data, or leave out --precision" in refused.stderr
    refused = command(data, "--data", data, "--out", out)
    assert refused.returncode == 1
    assert "leave out --data" in refused.stderr


@pytest.mark.parametrize(
    "option",
    [
        ("--precision", "fp16"),
        ("--false-alarm-rate", "0.001"),
        ("--confidence", "0.9"),
        ("--calibrate-on", "train"),
        ("--algorithm", "minmax"),
        ("--quantize", "all"),
        ("--cache", "x.json"),
    ],
)
def test_what_would_count_for_nothing_is_refused(
    option: tuple[str, str], exact: Bundle, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(build)
    with pytest.raises(InputError, match=f"leave out {option[0]} to compile it as it is"):
        CliRunner().invoke(
            app, [str(exact.path), "--out", str(tmp_path / "x"), *option], catch_exceptions=False
        )
    assert list(tmp_path.iterdir()) == []


def test_a_recompiled_bundle_tells_nothing_of_another_build(exact: Bundle, tmp_path: Path) -> None:
    judged = {**exact.manifest.verification["parts"][PART], "reference_threshold": 9.0}
    verification = {
        "reference": "torch",
        "parts": {PART: judged},
        "fallback_order": [{"candidate_precision": "int8"}],
    }
    files = {name: exact.file(name) for name in exact.manifest.files}
    source = write_bundle(tmp_path / "a", replace(exact.manifest, verification=verification), files)
    found = recompile_bundle(source, tmp_path / "b", Plan()).manifest.verification
    assert "fallback_order" not in found
    assert "reference_threshold" not in found["parts"][PART]
    assert (
        found["parts"][PART]["validation_images"]
        == exact.manifest.verification["parts"][PART]["validation_images"]
    )


def test_a_graph_that_does_not_give_its_bundles_answers_is_no_source(
    exact: Bundle, data: Path, tmp_path: Path
) -> None:
    golden = exact.golden()
    other = golden._replace(anomaly_score=golden.anomaly_score + 1.0)
    files = {"model.onnx": exact.file("model.onnx"), "golden.npz": golden_bytes(other)}
    source = write_bundle(tmp_path / "a", exact.manifest, files)
    with pytest.raises(VerificationError, match=r"the scores by 0\.\d+ \(allowed: 0\.005\)"):
        rebuild_bundle(source, [data], tmp_path / "b", FP16)
    assert not (tmp_path / "b").exists()


@needs_no_gpu
def test_an_engine_for_this_machine_says_why_it_cannot_be_built_here(exact: Bundle, tmp_path: Path) -> None:
    plan = Plan(*find_target(None, "jetson-orin"))
    # Not only that there is no GPU to build for: what is wrong with it, and the hint.
    with pytest.raises(BackendError, match="no NVIDIA driver: libcuda cannot be loaded; install"):
        recompile_bundle(exact, tmp_path / "x", plan)
    assert not (tmp_path / "x").exists()
