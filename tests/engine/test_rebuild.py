"""Builds a bundle of lower precision from a bundle, with the same validation images and without torch."""

from __future__ import annotations

import json
import re
import shutil
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
from edgead.bundle.set_threshold import change_threshold
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.cli.build import build
from edgead.engine.build import build_bundle
from edgead.engine.found_images import images_of
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Calibrating
from edgead.engine.rebuild import rebuild_bundle, recompile_bundle
from edgead.engine.target import find_target
from edgead.errors import BackendError, BundleError, DataError, InputError, VerificationError
from edgead.files.records import utc_now
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from tests.helpers.no_gpu import gpu_error
from tests.helpers.tensorrt_rtx_here import needs_no_gpu
from tests.helpers.toy_run import PART, ToyRun

FP16 = Plan(candidate_precisions=("fp16",))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the training images of the toy run, its held-out images, and a broken image file."""
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
    # With other calibration images, or in another order, the cache of the first build would be rejected.
    from_bundle = rebuild_bundle(exact, [data], tmp_path / "b", plan)
    assert from_bundle.file("model.onnx").read_bytes() == from_run.file("model.onnx").read_bytes()
    assert from_bundle.manifest.thresholds[PART].value == pytest.approx(
        from_run.manifest.thresholds[PART].value, abs=1e-6
    )
    assert from_bundle.manifest.thresholds[PART].n_normal == 12
    assert from_bundle.manifest.precision == precision
    assert from_bundle.manifest.training == exact.manifest.training
    assert from_bundle.manifest.verification["parts"][PART]["n"] == 24


def test_good_test_images_that_set_the_threshold_are_found_and_do_not_calibrate(
    exact: Bundle, data: Path, tmp_path: Path
) -> None:
    """As those of an imported model."""
    for letter, folder in (("t", "train/good"), ("h", "test/good")):
        (tmp_path / folder).mkdir(parents=True)
        for file in data.glob(f"*{letter}.png"):
            shutil.copy(file, tmp_path / folder)
    trained = ToyRun().training_images(100).images
    (found,) = images_of(exact, [tmp_path]).values()
    assert len(found.good.images) == 12
    np.testing.assert_array_equal(
        sorted(image.tobytes() for image in found.good.images),
        sorted(image.tobytes() for image in ToyRun().holdout_images()[PART].images),
    )
    assert {sample.path.parent.parent.name for sample in found.calibrating} == {"train"}
    assert len(found.calibrating) == len(trained)


def test_a_bundle_keeps_the_rate_and_the_confidence_of_its_build(data: Path, tmp_path: Path) -> None:
    scores = ToyRun().session().infer(ToyRun().holdout_images()[PART].images).anomaly_score
    loose = build_bundle(ToyRun(false_alarm_rate=0.5), tmp_path / "loose", Plan(confidence=0.8))
    own = threshold_from_normal_scores(scores, 0.5, 0.8)
    assert own.value < scores.max()
    # The rate of the build counts, and no threshold that was set afterwards.
    built = loose.manifest.thresholds[PART]
    changed = change_threshold(
        loose,
        PART,
        Threshold(9.0, None, None, None, 0, None),
        ThresholdChange("value", 9.0, 0, 0, 0, utc_now(), built),
    )
    kept = rebuild_bundle(changed, [data], tmp_path / "kept", Plan()).manifest
    assert (kept.thresholds[PART].false_alarm_rate, kept.thresholds[PART].confidence) == (0.5, 0.8)
    assert kept.thresholds[PART].value == pytest.approx(own.value, abs=1e-5)
    assert not kept.changes
    asked = rebuild_bundle(loose, [data], tmp_path / "asked", Plan(false_alarm_rate=0.25)).manifest
    assert (asked.thresholds[PART].false_alarm_rate, asked.thresholds[PART].confidence) == (0.25, 0.8)


def numbers_in_refusal(bundle: Bundle, folder: Path, out: Path) -> list[int]:
    """The numbers in the message for a folder that does not hold all validation images."""
    with pytest.raises(DataError) as refusal:
        rebuild_bundle(bundle, [folder], out, FP16)
    text = refusal.value.what
    for path in (folder, bundle.path):
        assert str(path) in text
        text = text.replace(str(path), "")
    return [int(number) for number in re.findall(r"\d+", text)]


def test_a_folder_without_the_validation_images_is_refused(exact: Bundle, data: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for file in sorted(data.glob("*.png"))[:9]:
        (some / file.name).write_bytes(file.read_bytes())
    held_out = len(list(some.glob("*h.png")))
    assert 0 < held_out < 12
    assert numbers_in_refusal(exact, some, tmp_path / "x") == [held_out, 12]
    for file in some.glob("*h.png"):
        file.unlink()
    assert numbers_in_refusal(exact, some, tmp_path / "x") == [0, 12]
    assert not (tmp_path / "x").exists()


def test_only_a_float32_bundle_becomes_another(exact: Bundle, data: Path, tmp_path: Path) -> None:
    half = rebuild_bundle(exact, [data], tmp_path / "half", FP16)
    with pytest.raises(InputError) as refusal:
        rebuild_bundle(half, [data], tmp_path / "x", Plan(candidate_precisions=("int8",)))
    for value in (str(half.path), "fp16", "fp32"):
        assert value in refusal.value.what


RATIOS = tuple(1.0 + 0.5 * number / 12 for number in range(12))[::-1]


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(ToyRun(ratios=RATIOS), tmp_path_factory.mktemp("crossed") / "toy")


def test_a_cross_fitted_bundle_gives_what_its_run_gives(crossed: Bundle, data: Path, tmp_path: Path) -> None:
    run = ToyRun(ratios=RATIOS)
    scores = run.session().infer(run.holdout_images()[PART].images).anomaly_score * np.array(RATIOS)
    # Twelve images are too few for 1 %, so the largest cross-fitted score is the threshold.
    assert crossed.manifest.thresholds[PART].value == pytest.approx(scores.max(), abs=1e-5)
    assert crossed.manifest.verification["parts"][PART]["validation_ratios"] == list(RATIOS)
    only = tmp_path / "only"
    only.mkdir()
    for file in data.glob("*h.png"):
        (only / file.name).write_bytes(file.read_bytes())
    plan = Plan(
        candidate_precisions=("int8",), calibrating=Calibrating("mixed", "minmax", tmp_path / "c.json")
    )
    from_run = build_bundle(run, tmp_path / "a", plan)
    # With other calibration images, or in another order, the cache of the first build would be rejected.
    from_bundle = rebuild_bundle(crossed, [only], tmp_path / "b", plan)
    assert from_bundle.manifest.thresholds[PART].value == pytest.approx(
        from_run.manifest.thresholds[PART].value, abs=1e-6
    )
    again = rebuild_bundle(crossed, [only], tmp_path / "c", Plan())
    assert again.manifest.thresholds[PART].value == pytest.approx(scores.max(), abs=1e-5)
    compiled = recompile_bundle(again, tmp_path / "d", Plan())
    judged = compiled.manifest.verification["parts"][PART]
    assert sorted(judged["validation_ratios"]) == sorted(RATIOS)


@pytest.mark.parametrize(
    "ratios",
    [[1e300, *RATIOS[1:]], [-1.0, *RATIOS[1:]], [True, *RATIOS[1:]], RATIOS[1:], [*RATIOS, 1.0], None],
)
def test_other_ratios_than_of_a_build_are_refused(
    ratios: list[float] | None, crossed: Bundle, data: Path, tmp_path: Path
) -> None:
    judged = {**crossed.manifest.verification["parts"][PART], "validation_ratios": ratios}
    manifest = replace(crossed.manifest, verification={"reference": "torch", "parts": {PART: judged}})
    files = {name: crossed.file(name) for name in crossed.manifest.files}
    other = write_bundle(tmp_path / "other", manifest, files)
    with pytest.raises(BundleError) as refusal:
        rebuild_bundle(other, [data], tmp_path / "x", FP16)
    assert str(other.path) in refusal.value.what
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "x").exists()


def test_a_bundle_that_does_not_record_its_validation_images_is_refused(
    exact: Bundle, data: Path, tmp_path: Path
) -> None:
    manifest = replace(exact.manifest, verification={})
    files = {name: exact.file(name) for name in exact.manifest.files}
    older = write_bundle(tmp_path / "older", manifest, files)
    with pytest.raises(InputError) as refusal:
        rebuild_bundle(older, [data], tmp_path / "x", FP16)
    assert str(older.path) in refusal.value.what
    assert PART in refusal.value.what
    assert refusal.value.hint is not None
    assert "edgead build" in refusal.value.hint


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
    assert {"int8", "cpu", "onnxruntime"} <= set(done.stdout.split())
    manifest = open_bundle(out).manifest
    assert manifest.precision == "int8"
    assert manifest.verification["calibration"]["key"] == json.loads(cache.read_text())["key"]
    golden = open_bundle(out).golden()
    assert np.isfinite(golden.anomaly_map).all()
    refused = command(exact.path, "--out", out, "--precision", "int8")
    assert refused.returncode == 1
    for value in (str(exact.path), "--data", "--precision"):
        assert value in refused.stderr.splitlines()[-1]
    refused = command(data, "--data", data, "--out", out)
    assert refused.returncode == 1
    assert str(data) in refused.stderr.splitlines()[-1]
    assert "--data" in refused.stderr.splitlines()[-1]


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
def test_an_option_that_would_have_no_effect_is_refused(
    option: tuple[str, str], exact: Bundle, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(build)
    with pytest.raises(InputError) as refusal:
        CliRunner().invoke(
            app, [str(exact.path), "--out", str(tmp_path / "x"), *option], catch_exceptions=False
        )
    assert option[0] in str(refusal.value)
    assert "--data" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_recompiled_bundle_does_not_keep_the_record_of_another_build(exact: Bundle, tmp_path: Path) -> None:
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
    with pytest.raises(VerificationError) as refusal:
        rebuild_bundle(source, [data], tmp_path / "b", FP16)
    # The limit of float32 for scores.
    (scores,) = (line for line in refusal.value.table if "score error" in line)
    assert "0.005" in scores.split()
    assert not (tmp_path / "b").exists()


@needs_no_gpu
def test_an_engine_for_this_machine_is_refused_with_the_error_of_its_gpu(
    exact: Bundle, tmp_path: Path
) -> None:
    plan = Plan(*find_target(None, "jetson-orin"))
    with pytest.raises(BackendError) as refusal:
        recompile_bundle(exact, tmp_path / "x", plan)
    # Not only that there is no GPU to build for, but the reason and the hint.
    assert str(refusal.value) == str(gpu_error())
    assert not (tmp_path / "x").exists()
