"""One model for two parts, from images to verdicts, with the commands of a user."""

import csv
import json
import re

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgead.bundle import open_bundle, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.cli.build import build
from edgead.cli.calibrate import calibrate
from edgead.cli.eval import eval_
from edgead.cli.predict import predict
from edgead.cli.stream import stream
from edgead.cli.train import train
from edgead.data import open_dataset, split_holdout
from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.data.synthetic.dataset import DEFECTS, add_defect
from edgead.engine.found_images import images_of, spread
from edgead.errors import BundleError, DataError, InputError, VerificationError
from edgead.imaging.decode import read_image
from edgead.models import METHODS
from edgead.runtime import open_session
from edgead.runtime.golden_check import check_golden
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.run import open_run
from tests.helpers.stream_parts import verdicts_of
from tests.helpers.training_parts import SIZE_PX, Template, good_parts

app = typer.Typer(pretty_exceptions_enable=False)
for name, command in {
    "train": train, "build": build, "eval": eval_, "stream": stream, "predict": predict, "calibrate": calibrate,
}.items():  # fmt: skip
    app.command(name)(command)

PARTS = ("disc", "plate")
COUNTS = {"disc": 24, "plate": 12}


class Exportable(Template):
    """A template that reads its input and adds zero times it, because a graph cannot have a constant output."""

    def student_features(self, images, teacher_features):
        return [template + 0.0 * x for template, x in zip(self.templates, teacher_features, strict=True)]


def edgead(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def plates(count):
    """Draw parts of another kind with much more noise, so that their scores are higher."""
    rng = np.random.default_rng(3)
    images = np.full((count, SIZE_PX, SIZE_PX, 3), 90.0)
    images[:, 12:52, 20:44] = 200.0
    return np.clip(images + rng.normal(0, 40, images.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write datasets disc and plate in the layout of MVTec AD, with defects in the test folder."""
    root = tmp_path_factory.mktemp("data")
    for part, make in zip(PARTS, (good_parts, plates), strict=True):
        images, rng = make(COUNTS[part] + 8), np.random.default_rng(4)
        test = images[COUNTS[part] :]
        defects = [add_defect(image, DEFECTS[i % len(DEFECTS)], rng)[0] for i, image in enumerate(test)]
        for folder, of_split in {
            "train/good": images[: COUNTS[part]], "test/good": test, "test/dot": defects,
        }.items():  # fmt: skip
            (root / part / folder).mkdir(parents=True)
            for number, image in enumerate(of_split):
                assert cv2.imwrite(str(root / part / folder / f"{number:03d}.png"), image[..., ::-1])
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "unified"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "stfpm", Exportable)
        options = [
            "--method",
            "stfpm",
            "--size",
            SIZE_PX,
            "--epochs",
            8,
            "--batch-size",
            4,
            "--hold-out",
            0.1,
        ]
        folders = [data / part for part in PARTS]
        done = edgead("train", *folders, "--out", out, *options, "--accelerator", "cpu")
        yield out, done


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


@pytest.fixture(scope="module")
def built(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("engines") / "unified"
    done = edgead("build", run, "--out", out)
    return out, done


@pytest.fixture(scope="module")
def bundle(built):
    return built[0]


def held_out(data, part):
    _, samples = split_holdout(open_dataset(data / part).train, 0.1, seed=0)
    return samples


def test_every_part_holds_out_its_own_images_like_a_single_part(data, run, trained):
    record = open_run(run).record
    assert list(record.parts) == list(PARTS)
    for part, found in record.parts.items():
        expected = held_out(data, part)
        assert len(expected) == {"disc": 2, "plate": 1}[part]
        assert found.holdout == tuple(f"train/good/{sample.path.name}" for sample in expected)
        assert found.train_images == COUNTS[part] - len(expected)
    logged = trained[1].stderr.splitlines()
    for values in (("disc", "22 good images", "2 held out"), ("plate", "11 good images", "1 held out")):
        assert any(all(value in line for value in values) for line in logged)
    assert any("--alignment" in line and "disc 0." in line and "plate 0." in line for line in logged)


def test_calibration_sees_all_parts(data, run):
    def parts(images):
        return [sample.path.relative_to(data).parts[0] for sample in images.samples]

    assert parts(open_run(run).training_images(10)) == ["disc"] * 5 + ["plate"] * 4
    # Both parts have the same number of images, unless a part has fewer.
    assert parts(open_run(run).training_images(100)) == ["disc"] * 22 + ["plate"] * 11


def test_calibration_from_a_bundle_sees_all_parts_and_no_validation_image(data, bundle):
    opened = open_bundle(bundle)
    images = images_of(opened, [data / "plate", data / "disc"])
    found = spread(images, opened.manifest.size)(10)
    assert list(images) == list(PARTS)
    of_part = {}
    for part in PARTS:
        validation_images = {sample.path for sample in held_out(data, part)}
        trained = [s.path for s in open_dataset(data / part).train if s.path not in validation_images]
        of_part[part] = {read_image(path).tobytes() for path in trained}
    assert [[image.tobytes() in of_part[part] for part in PARTS] for image in found] == (
        [[True, False]] * 5 + [[False, True]] * 4
    )


def test_every_part_has_the_threshold_of_its_own_scores(data, run, bundle):
    thresholds, opened = open_bundle(bundle).manifest.thresholds, open_run(run)
    assert list(thresholds) == list(PARTS)
    with open_session(open_bundle(bundle)) as session, opened.session() as reference:
        for part in PARTS:
            images = np.stack([read_image(sample.path) for sample in held_out(data, part)])
            scores = session.infer(images).anomaly_score
            expected = threshold_from_normal_scores(scores)
            assert thresholds[part].value == pytest.approx(expected.value, abs=1e-5)
            assert thresholds[part].n_normal == len(images)
            scores = reference.infer(images).anomaly_score
            assert opened.thresholds[part].value == pytest.approx(scores.max(), abs=1e-5)
    # The tests below need thresholds that differ clearly.
    assert abs(thresholds["disc"].value - thresholds["plate"].value) > 0.02


def test_every_part_is_verified_like_a_single_part(data, built):
    bundle, done = open_bundle(built[0]), built[1]
    judged = bundle.manifest.verification["parts"]
    assert {part: judged[part]["n"] for part in PARTS} == {"disc": 4, "plate": 2}
    for part in PARTS:
        assert judged[part]["decision_flips"] == 0
        threshold = bundle.manifest.thresholds[part].value
        assert judged[part]["limits"]["map_error_max"] == pytest.approx(min(1e-4 / threshold, 0.01))
        lines = done.stdout.splitlines()
        assert any(f"{threshold:.4g}" in line and line.endswith(part) for line in lines)
        assert f"warning: {part}: " in done.stderr
    golden = bundle.golden()
    assert golden.part.tolist() == [0, 0, 0, 0, 1, 1, 0]
    disc = np.stack([read_image(sample.path) for sample in held_out(data, "disc")])
    np.testing.assert_array_equal(golden.images[:4], np.concatenate([disc, synthetic_defects(disc)]))


def decisions(stdout):
    return [image["is_anomalous"] for image in json.loads(stdout)["images"]]


def test_a_dataset_is_judged_by_the_threshold_of_its_part(data, run, bundle, tmp_path):
    for model in (run, bundle):
        thresholds = open_run(run).thresholds if model == run else open_bundle(bundle).manifest.thresholds
        for part in PARTS:
            done = edgead("eval", model, data / part, "--json")
            found = json.loads(done.stdout)
            assert found["evaluation"]["threshold"]["value"] == thresholds[part].value
            assert found["details"]["part"] == part
    renamed = tmp_path / "tuesday"
    renamed.mkdir()
    for folder in ("train", "test"):
        (renamed / folder).symlink_to(data / "disc" / folder)
    with pytest.raises(InputError) as caught:
        edgead("eval", bundle, renamed)
    assert "--part disc or plate" in str(caught.value)
    done = edgead("eval", bundle, renamed, "--part", "disc", "--json")
    assert decisions(done.stdout) == decisions(edgead("eval", bundle, data / "disc", "--json").stdout)
    with pytest.raises(InputError) as caught:
        edgead("eval", bundle, data / "disc", "--part", "tuesday")
    assert "'tuesday'" in str(caught.value)
    assert "--part disc or plate" in str(caught.value)


def test_a_stream_is_judged_by_the_threshold_of_its_part(data, bundle, tmp_path):
    thresholds = open_bundle(bundle).manifest.thresholds
    low, high = sorted(PARTS, key=lambda part: thresholds[part].value)
    source = data / high / "test/good"
    lines = {}
    for part in PARTS:
        file = tmp_path / f"{part}.jsonl"
        edgead("stream", bundle, "--source", source, "--sink", f"jsonl:{file}", "--part", part)
        lines[part] = verdicts_of(file.read_text())
        assert {line["part"] for line in lines[part]} == {part}
        assert {line["threshold"] for line in lines[part]} == {thresholds[part].value}
    scores = [line["anomaly_score"] for line in lines[low]]
    assert [line["anomaly_score"] for line in lines[high]] == scores
    # Good parts of one kind exceed the lower threshold of the other kind.
    assert all(line["is_anomalous"] for line in lines[low])
    assert not all(line["is_anomalous"] for line in lines[high])
    done = edgead("stream", bundle, "--source", source, "--sink", "status:", "--part", high)
    assert all(f" ms  {high}  " in line for line in done.stderr.splitlines() if line.endswith(" a second"))
    assert f" ms  {high}  " in done.stderr
    with pytest.raises(InputError) as caught:
        edgead("stream", bundle, "--source", source)
    assert "--part disc or plate" in str(caught.value)
    with pytest.raises(InputError) as caught:
        edgead("stream", bundle, "--source", source, "--part", "nut")
    assert "'nut'" in str(caught.value)
    assert "--part disc or plate" in str(caught.value)


def test_a_run_and_its_bundle_predict_with_the_threshold_of_a_part(data, run, bundle, tmp_path):
    files = sorted((data / "plate/test").rglob("*.png"))
    batch = np.stack([read_image(file) for file in files])
    with open_run(run).session() as session:
        scores = session.infer(batch).anomaly_score
    for model, source in ((run, "edgead train"), (bundle, "edgead build")):
        out = tmp_path / model.parent.name
        done = edgead("predict", model, data / "plate/test", "--recursive", "--part", "plate", "--out", out)
        assert done.exit_code == 0, done.output
        with open(out / "predictions.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == [str(file) for file in files]
        np.testing.assert_allclose([float(row["anomaly_score"]) for row in rows], scores, rtol=1e-4)
        assert {(row["part"], row["threshold_source"]) for row in rows} == {("plate", source)}


def test_a_lower_precision_is_verified_part_by_part(data, bundle, tmp_path):
    # The folders of images may be given in any order.
    given = [word for part in reversed(PARTS) for word in ("--data", data / part)]
    edgead("build", bundle, *given, "--out", tmp_path / "half", "--precision", "fp16")
    manifest, exact = open_bundle(tmp_path / "half").manifest, open_bundle(bundle).manifest
    assert list(manifest.thresholds) == list(PARTS)
    for part in PARTS:
        judged = manifest.verification["parts"][part]
        assert judged["reference_threshold"] == pytest.approx(exact.thresholds[part].value, abs=1e-5)
        assert judged["validation_images"] == exact.verification["parts"][part]["validation_images"]
        assert judged["auroc"] is not None
    with open_session(open_bundle(tmp_path / "half")) as session:
        for part in PARTS:
            images = np.stack([read_image(sample.path) for sample in held_out(data, part)])
            scores = session.infer(images).anomaly_score
            assert manifest.thresholds[part].value == pytest.approx(scores.max(), abs=1e-6)


def test_images_of_every_part_and_of_no_other_part_are_needed(data, bundle, tmp_path):
    options = ["--out", tmp_path / "x", "--precision", "fp16"]
    with pytest.raises(DataError) as caught:
        edgead("build", bundle, "--data", data / "disc", *options)
    assert "--data" in str(caught.value)
    assert "plate" in str(caught.value)
    other = tmp_path / "other"
    other.mkdir()
    assert cv2.imwrite(str(other / "0.png"), plates(1)[0] // 2)
    given = [word for folder in (other, data / "plate", data / "disc") for word in ("--data", folder)]
    with pytest.raises(DataError) as caught:
        edgead("build", bundle, *given, *options)
    assert str(other) in str(caught.value)
    with pytest.raises(DataError) as caught:
        edgead("calibrate", bundle, "--data", data / "disc", "--out", tmp_path / "x.json")
    assert "plate" in str(caught.value)
    assert not (tmp_path / "x.json").exists()
    assert not (tmp_path / "x").exists()


def test_a_bundle_is_recompiled_with_its_thresholds(bundle, tmp_path):
    edgead("build", bundle, "--out", tmp_path / "again")
    again, first = open_bundle(tmp_path / "again").manifest, open_bundle(bundle).manifest
    assert again.thresholds == first.thresholds
    assert list(again.thresholds) == list(PARTS)
    for part in PARTS:
        assert (
            again.verification["parts"][part]["validation_images"]
            == first.verification["parts"][part]["validation_images"]
        )


def test_golden_answers_are_checked_for_every_part(bundle, tmp_path):
    opened = open_bundle(bundle)
    golden = opened.golden()
    files = {"model.onnx": opened.file("model.onnx")}

    def with_golden(name, **changes):
        content = golden_bytes(golden._replace(**changes))
        return write_bundle(tmp_path / name, opened.manifest, {**files, "golden.npz": content})

    scores = golden.anomaly_score.copy()
    scores[4] += 0.5
    wrong = with_golden("wrong", anomaly_score=scores)
    with open_session(opened) as session:
        check_golden(session, opened)
        with pytest.raises(VerificationError) as caught:
            check_golden(session, wrong)
        assert "2 images of plate" in str(caught.value)
        # The relative error of the changed score.
        assert re.search(r" 0\.[1-9]\d* ", str(caught.value))
        # The last entry is the part of the chart.
        for part in ([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2, 0]):
            less = with_golden("less", part=np.array(part, np.uint8))
            with pytest.raises(BundleError) as refused:
                check_golden(session, less)
            assert str(less.path) in str(refused.value)


def test_two_parts_of_one_name_are_refused(data, tmp_path):
    (tmp_path / "disc").mkdir()
    for folder in ("train", "test"):
        (tmp_path / "disc" / folder).symlink_to(data / "disc" / folder)
    with pytest.raises(InputError) as caught:
        edgead("train", data / "disc", tmp_path / "disc", "--out", tmp_path / "run", "--accelerator", "cpu")
    assert "disc" in str(caught.value)
    assert not (tmp_path / "run").exists()
