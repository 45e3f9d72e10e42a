"""Builds from a run, with a toy method instead of a trained one; everything else is real."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgead.bundle import Bundle, Manifest, manifest, open_bundle
from edgead.data import LoadedImages, Sample
from edgead.engine.build import build_bundle
from edgead.engine.plan import Plan
from edgead.engine.validation_images import ValidationImages
from edgead.engine.write import answers
from edgead.errors import InputError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import FakeSession, open_session
from edgead.runtime.agreement import compare_sessions
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.session import TorchSession
from edgead.types import Prediction
from tests.helpers.processes import start_process
from tests.helpers.toy_run import PART, SIZE, ToyRun


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(ToyRun(), tmp_path_factory.mktemp("engines") / "toy")


def test_the_bundle_opens_and_says_what_it_is(bundle: Bundle) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert (manifest.method, manifest.teacher, manifest.size) == ("toy", "toy_teacher", SIZE)
    assert (manifest.backend, manifest.precision) == ("onnxruntime", "fp32")
    assert manifest.training == {"epochs": 3, "loss": 0.25}
    assert set(manifest.files) == {"model.onnx", "golden.npz"}
    assert manifest.verification["parts"][PART]["n"] == 24
    assert manifest.verification["parts"][PART]["decision_flips"] == 0
    share = min(1e-4 / manifest.thresholds[PART].value, 0.01)
    assert 0.0 <= manifest.verification["parts"][PART]["map_error_max"] <= share
    assert manifest.verification["parts"][PART]["limits"]["map_error_max"] == pytest.approx(share)


def test_the_bundle_decides_as_the_model_on_other_images(bundle: Bundle) -> None:
    images = np.random.default_rng(9).integers(0, 256, (10, 64, 96, 3), np.uint8)
    with open_session(bundle) as session:
        fidelity = compare_sessions(
            ToyRun().session(), session, images, bundle.manifest.thresholds[PART].value
        )
    assert fidelity.map_error_max <= 1e-4 / bundle.manifest.thresholds[PART].value
    assert fidelity.decision_flips == 0


def test_the_session_gives_the_golden_answers(bundle: Bundle) -> None:
    golden = bundle.golden()
    run = ToyRun()
    np.testing.assert_array_equal(golden.images[:4], run.holdout_images()[PART].images[:4])
    # Four good ones, their synthetic defects, and the chart.
    assert len(golden.images) == 9
    with open_session(bundle) as session:
        prediction = session.infer(golden.images)
    np.testing.assert_allclose(prediction.anomaly_map, golden.anomaly_map, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(prediction.anomaly_score, golden.anomaly_score, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5])
def test_the_golden_defects_are_of_as_many_kinds_as_they_can_be(parts: int) -> None:
    grey = np.full((6, 64, 64, 3), 70, np.uint8)
    loaded = LoadedImages(grey, tuple(Sample(Path(f"{i}.png"), 0) for i in range(6)), ())
    of_parts = {str(part): ValidationImages(loaded, None, 0.01, 0.95) for part in range(parts)}
    with FakeSession(ModelSize(64, 64)) as session:
        golden = answers(session, of_parts)
    kinds = []
    for part in range(parts):
        good, defects = np.split(golden.images[:-1][golden.part[:-1] == part], 2)
        np.testing.assert_array_equal(good, grey[: len(good)])
        changed = (defect[defect != 70] for defect in defects)
        kinds += [int(values[0]) if np.ptp(values) == 0 else "noise" for values in changed]
    assert set(kinds) <= {255 - 70, 0, 255, "noise"}
    assert len(set(kinds)) == min(4, len(kinds))


def test_the_threshold_is_an_order_statistic_of_the_held_out_scores(bundle: Bundle, tmp_path: Path) -> None:
    images = ToyRun().holdout_images()[PART].images
    scores = ToyRun().session().infer(images).anomaly_score
    # Twelve images are too few for 1 % at 95 %, so it is their largest score.
    assert bundle.manifest.thresholds[PART].value == pytest.approx(scores.max(), abs=1e-5)
    assert bundle.manifest.thresholds[PART].n_normal == 12
    assert bundle.manifest.thresholds[PART].warning() is not None
    loose = build_bundle(
        ToyRun(), tmp_path / "loose", Plan(false_alarm_rate=0.5, confidence=0.8)
    ).manifest.thresholds[PART]
    expected = threshold_from_normal_scores(scores, 0.5, 0.8)
    assert expected.value < scores.max()
    assert loose.value == pytest.approx(expected.value, abs=1e-5)
    assert (loose.false_alarm_rate, loose.confidence) == (0.5, 0.8)
    assert loose.warning() is None


def test_labelled_images_set_no_threshold(bundle: Bundle, tmp_path: Path) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (40, SIZE.height_px, SIZE.width_px, 3), np.uint8)
    samples = tuple(Sample(Path(f"{number}.png"), number % 2) for number in range(len(noise)))
    run = ToyRun(labelled=LoadedImages(noise, samples, ()))
    assert run.session().infer(noise[::2]).anomaly_score.max() > bundle.manifest.thresholds[PART].value
    assert build_bundle(run, tmp_path / "x").manifest.thresholds == bundle.manifest.thresholds


class RoundedSession(TorchSession):
    """Torch with other rounding: all results are a little higher, or a little lower."""

    rounding = np.float32(0.0)

    def infer(self, batch: np.ndarray) -> Prediction:
        exact = super().infer(batch)
        return Prediction(exact.anomaly_map + self.rounding, exact.anomaly_score + self.rounding)


@pytest.mark.parametrize("rounding", [2e-5, -2e-5])
def test_a_rounding_makes_no_alarm_of_the_image_that_set_the_threshold(
    rounding: float, tmp_path: Path
) -> None:
    run = ToyRun()
    reference = RoundedSession(run.load_model())
    reference.rounding = np.float32(rounding)
    run.session = lambda: reference  # type: ignore[method-assign]
    built = build_bundle(run, tmp_path / "x")
    images = run.holdout_images()[PART].images
    with open_session(built) as session:
        for scores in (session.infer(images).anomaly_score, reference.infer(images).anomaly_score):
            # One unit in the last place is left for a batch of another size.
            assert (scores.astype(np.float64) - built.manifest.thresholds[PART].value).max() <= 1e-6


class BatchedSession(TorchSession):
    """Torch as on some machines: in a larger batch a score is higher by its last bit."""

    def infer(self, batch: np.ndarray) -> Prediction:
        exact = super().infer(batch)
        higher = np.float32(1.0 + 2.0**-22 * len(batch))
        return Prediction(exact.anomaly_map * higher, exact.anomaly_score * higher)


@pytest.mark.parametrize("held_out", [1, 3, 9])
def test_the_last_bit_of_a_batch_of_another_size_refuses_no_build(held_out: int) -> None:
    images = ToyRun().holdout_images()[PART]
    chosen = np.arange(held_out) % len(images.images)
    loaded = LoadedImages(images.images[chosen], tuple(images.samples[number] for number in chosen), ())
    validation_images = ValidationImages(loaded, None, 0.01, 0.95)
    session = BatchedSession(ToyRun().load_model())
    threshold = validation_images.threshold(validation_images.scores(session)).value
    exact = TorchSession(ToyRun().load_model())
    assert compare_sessions(session, exact, validation_images.all, threshold).decision_flips == 0
    scores = [
        session.infer(validation_images.all[i : i + 8]).anomaly_score for i in range(0, 2 * held_out, 8)
    ]
    # The comparison uses the same batches as the threshold.
    assert np.concatenate(scores)[:held_out].max() == np.float32(threshold)


def test_a_model_that_decides_otherwise_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        build_bundle(ToyRun(reference_seed=1), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    before = {file.name: file.read_bytes() for file in bundle.path.iterdir()}
    with pytest.raises(VerificationError):
        build_bundle(ToyRun(reference_seed=1), bundle.path)
    assert {file.name: file.read_bytes() for file in bundle.path.iterdir()} == before


@pytest.mark.parametrize(("rate", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.01, 0.0), (0.01, 1.5)])
def test_a_rate_that_makes_no_sense_is_refused_before_any_work(
    rate: float, confidence: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgead")
    with pytest.raises(InputError):
        build_bundle(ToyRun(), tmp_path / "x", Plan(false_alarm_rate=rate, confidence=confidence))
    assert caplog.messages == []


def test_more_images_than_a_bundle_can_list_are_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgead")
    monkeypatch.setattr(manifest, "MAX_RECORDED_IMAGES", 2)
    with pytest.raises(InputError):
        build_bundle(ToyRun(), tmp_path / "x")
    assert not any("exporting" in message for message in caplog.messages)


def test_as_many_images_as_are_allowed_fit_into_a_manifest(bundle: Bundle) -> None:
    count = manifest.MAX_RECORDED_IMAGES
    (part,) = bundle.manifest.thresholds
    records = {
        "validation_images": ["f" * 32] * count,
        # Numbers with as many digits as a double can have.
        "validation_scores": [1.2345678901234567e-100] * count,
        "validation_ratios": [1.2345678901234567] * count,
    }
    full = replace(bundle.manifest, verification={"parts": {part: records}})
    assert len(full.to_json()) < 0.95 * manifest.MAX_MANIFEST_BYTES


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        build_bundle(ToyRun(), tmp_path)
    assert str(tmp_path) in caught.value.what
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_every_step_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgead")
    build_bundle(ToyRun(count=1), tmp_path / "x")
    lines = caplog.messages
    assert [record.module for record in caplog.records] == ["build", "build", "build", "write"]
    assert "toy_teacher" in lines[0]
    assert str(tmp_path / "x") in lines[-1]


def build_and_die(place: Path) -> None:
    """Build a bundle in a process that is killed in the middle of writing: the model is written, the manifest not."""

    def die(_: Manifest) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    class Killer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.module == "write":
                Manifest.to_json = die  # type: ignore[method-assign]

    logging.basicConfig(level=logging.INFO, handlers=[Killer()])
    build_bundle(ToyRun(count=2), place)


def test_a_build_killed_while_writing_leaves_the_old_bundle_and_the_next_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "x"
    build_bundle(ToyRun(count=1), target)
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    said = tmp_path.with_suffix(".txt")
    died = start_process(build_and_die, target, output=said)
    died.join()
    assert died.exitcode == -signal.SIGKILL, said.read_text()
    assert len(list(tmp_path.iterdir())) == 2, "the incomplete bundle is beside the old bundle"
    assert {file.name: file.read_bytes() for file in open_bundle(target).path.iterdir()} == before
    caplog.set_level(logging.INFO, "edgead")
    again = build_bundle(ToyRun(count=2), target)
    assert caplog.records[-1].module == "write"
    assert again.manifest.thresholds[PART].n_normal == 2
    assert list(tmp_path.iterdir()) == [target]
