"""The public functions and names of `import edgead`; the examples of `docs/api.md` run in test_api_examples.py."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgead
from edgead.bundle.set_threshold import change_threshold, undo_change
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.errors import (
    BackendError,
    BundleError,
    DataError,
    EdgeadError,
    ImageError,
    InputError,
    RunError,
    SinkError,
    SourceError,
)
from edgead.evaluation.evaluate import evaluate, score_dataset
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.model import BATCH, Model
from edgead.scoring.threshold import Threshold
from edgead.training import start
from edgead.training.config import TrainConfig
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.parts_on_disk import SIZE_PX, write_parts
from tests.helpers.stream_parts import verdicts_of
from tests.helpers.training_parts import TINY_TEACHER, write_images
from tests.test_imports import BLOCK

THRESHOLD = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)
SIZE = ModelSize(32, 64)
ADDRESS = "mqtt://me:secret@broker/line?spool=s"


def make_image(height: int = 32, width: int = 64, bright: bool = True) -> np.ndarray:
    """Make a dark image; if bright, with a white rectangle in the middle half of each axis."""
    image = np.zeros((height, width, 3), np.uint8)
    if bright:
        image[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    return image


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_brightness_bundle(tmp_path / "bundle", SIZE, THRESHOLD)


def of_parts(path: Path) -> Path:
    thresholds = {"nut": THRESHOLD, "bolt": Threshold(2.0, 0.01, 0.95, 0.95, 299, 299)}
    return write_brightness_bundle(path, SIZE, thresholds)


def test_the_public_names() -> None:
    assert edgead.__all__ == [
        "Bundle", "EdgeadError", "Evaluation", "FakeSession", "Model", "ModelSize", "Prediction", "Region", "Result",
        "Session", "Summary", "Threshold", "Verdict", "__version__", "build", "compare_sessions", "evaluate", "load",
        "open_bundle", "open_dataset", "open_session", "stream", "train",
    ]  # fmt: skip
    for name in edgead.__all__:
        assert getattr(edgead, name) is not None
    assert set(edgead.__all__) <= set(dir(edgead))
    with pytest.raises(AttributeError):
        _ = edgead.nothing
    # An installed type checker reads the package.
    assert (Path(edgead.__file__).parent / "py.typed").is_file()


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse(Path(edgead.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: line.module for line in block.body for alias in line.names}  # type: ignore[attr-defined]
    assert sorted([*seen, "__version__"]) == edgead.__all__
    for name, module in seen.items():
        assert getattr(sys.modules[module], name) is getattr(edgead, name)


def run_python(code: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_the_import_brings_only_the_standard_library() -> None:
    code = (
        "import sys\nbefore = set(sys.modules)\nimport edgead\nassert edgead.EdgeadError.exit_code == 1\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    assert set(run_python(code).split()) - set(sys.stdlib_module_names) == {"edgead"}


def test_a_device_without_the_training_packages_predicts(bundle: Path) -> None:
    # All packages except ONNX Runtime are blocked.
    code = (
        BLOCK + "HEAVY.remove('onnxruntime')\nimport edgead, numpy\nwith edgead.load(sys.argv[1]) as model:\n"
        "    print(model.predict(numpy.full((8, 8, 3), 255, numpy.uint8)).is_anomalous)"
    )
    assert run_python(code, str(bundle)) == "True\n"


def test_no_package_has_the_name_of_a_public_function() -> None:
    # The import of a submodule would replace the function by the module.
    names = {path.stem for path in Path(edgead.__file__).parent.iterdir()}
    assert names.isdisjoint(edgead.__all__)


def test_a_result_of_the_brightness(bundle: Path) -> None:
    with edgead.load(bundle) as model:
        assert (model.parts, model.size, model.thresholds) == (("washer",), SIZE, {"washer": THRESHOLD})
        reject, good = model.predict([make_image(), make_image(bright=False)])
    assert (reject.anomaly_score, reject.threshold, reject.is_anomalous, reject.part) == (
        1.0,
        0.5,
        True,
        "washer",
    )
    assert (good.anomaly_score, good.is_anomalous, good.regions) == (0.0, False, ())
    assert reject.anomaly_map.dtype == np.float32
    np.testing.assert_allclose(reject.anomaly_map, make_image()[..., 0] / 255, atol=1e-6)
    (region,) = reject.regions
    assert (region.box, region.area_px, region.highest_value) == ((16, 8, 32, 16), 512, 1.0)
    assert set(region.polygon) == {(16, 8), (16, 24), (48, 24), (48, 8)}


def test_regions_and_the_full_map_are_in_pixels_of_the_image(bundle: Path) -> None:
    image = make_image(128, 128)
    with edgead.load(bundle) as model:
        small, full = model.predict(image), model.predict(image, full_size=True)
    assert (small.anomaly_map.shape, full.anomaly_map.shape) == ((32, 64), (128, 128))
    assert full.anomaly_map.dtype == np.float32
    assert small.regions == full.regions
    assert [region.box for region in full.regions] == [(32, 32, 64, 64)]
    # Far from the edges, which the resize blurs, the map is equal to the brightness of the image.
    assert full.anomaly_map[40:88, 40:88].min() == full.anomaly_map.max() == 1.0
    assert full.anomaly_map[:24].max() == 0.0


@pytest.mark.parametrize("kind", [str, Path])
def test_an_image_file_and_its_pixels_give_the_same(bundle: Path, tmp_path: Path, kind: type) -> None:
    cv2.imwrite(str(tmp_path / "part.png"), make_image(48, 80))
    with edgead.load(kind(bundle)) as model:
        from_file = model.predict(kind(tmp_path / "part.png"))
        from_array = model.predict(read_image(tmp_path / "part.png"))
    np.testing.assert_array_equal(from_file.anomaly_map, from_array.anomaly_map)
    assert from_file.regions == from_array.regions


def test_image_files_are_read_at_the_depth_of_the_model(tmp_path: Path) -> None:
    # 2055 / 4095 of 255 is 128; an array and a file of 8 bits are taken as they are.
    assert cv2.imwrite(str(tmp_path / "deep.tif"), np.full((32, 32), 2055, np.uint16))
    assert cv2.imwrite(str(tmp_path / "plain.png"), np.full((32, 32), 128, np.uint8))
    with Model(edgead.FakeSession(SIZE), SIZE, {"part": THRESHOLD}, "fake", bit_depth=12) as model:
        results = model.predict([tmp_path / "deep.tif", tmp_path / "plain.png"])
    np.testing.assert_allclose([result.anomaly_score for result in results], 128 / 255, atol=1e-6)


class Counting(edgead.FakeSession):
    """A session that records the size of each batch."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.batches: list[int] = []

    def infer(self, batch: Any) -> edgead.Prediction:
        self.batches.append(len(batch))
        return super().infer(batch)


def test_a_list_is_scored_in_batches_and_keeps_its_order() -> None:
    session, count = Counting(), 2 * BATCH + 3
    levels = np.linspace(0, 250, count).astype(np.uint8)
    images = [np.full((20 + number, 30, 3), level, np.uint8) for number, level in enumerate(levels)]
    with Model(session, SIZE, {"part": THRESHOLD}, "fake") as model:
        results = model.predict(tuple(images))
    assert session.batches == [BATCH, BATCH, 3]
    np.testing.assert_allclose([result.anomaly_score for result in results], levels / 255, atol=1e-6)


def test_a_list_with_a_broken_file_is_an_error(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("a note, not an image\n")
    images: list[Any] = [make_image()] * (BATCH + 2)
    with edgead.load(bundle) as model, pytest.raises(ImageError):
        model.predict([*images, tmp_path / "broken.png", *images])


def test_a_result_names_the_source_of_its_threshold(bundle: Path) -> None:
    change = ThresholdChange("recall", 0.95, 9, 0, 3, "2026-11-29T12:00:00+00:00", THRESHOLD)
    changed = change_threshold(edgead.open_bundle(bundle), "washer", replace(THRESHOLD, value=0.25), change)
    with edgead.load(changed) as model:
        own, given = model.predict(make_image()), model.predict(make_image(), threshold=0.75)
    assert (own.threshold, own.threshold_source) == (0.25, "edgead threshold --recall 0.95")
    assert (given.threshold, given.threshold_source) == (0.75, "given")
    with edgead.load(bundle, threshold=0.75) as model:
        assert model.predict(make_image()).threshold_source == "given"
    undo_change(changed, "washer")
    with edgead.load(bundle) as model:
        assert model.predict(make_image()).threshold_source == "edgead build"


def test_each_part_has_its_threshold(tmp_path: Path) -> None:
    with edgead.load(of_parts(tmp_path / "bundle")) as model:
        nut, bolt = (model.predict(make_image(), part=part) for part in ("nut", "bolt"))
    assert (nut.is_anomalous, nut.threshold, nut.part) == (True, 0.5, "nut")
    assert (bolt.is_anomalous, bolt.threshold, bolt.part, bolt.regions) == (False, 2.0, "bolt", ())


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ([], InputError),
        (7, InputError),
        (None, InputError),
        (b"part.png", InputError),
        ([make_image(), 7], InputError),
        (make_image()[..., 0], InputError),
        (make_image()[..., :2], InputError),
        (np.zeros((8, 8, 4), np.uint8), InputError),
        (make_image().astype(np.float32), InputError),
        (np.zeros((0, 8, 3), np.uint8), InputError),
        (np.zeros((2, 8, 8, 3), np.uint8), InputError),
        ("missing.png", ImageError),
        ("broken.png", ImageError),
        (".", ImageError),
    ],
)
def test_a_wrong_image_is_one_line(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Any, kind: type[EdgeadError]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_text("a note, not an image\n")
    with edgead.load(bundle) as model, pytest.raises(kind) as caught:
        model.predict(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [None, "screw", 3])
def test_an_unknown_part_is_one_line_that_names_the_parts(tmp_path: Path, part: Any) -> None:
    with edgead.load(of_parts(tmp_path / "bundle")) as model, pytest.raises(InputError) as caught:
        model.predict(make_image(), part=part)
    assert {"nut", "bolt"} <= set(str(caught.value).split())


def test_a_closed_model_is_an_error(bundle: Path) -> None:
    model = edgead.load(bundle)
    model.close()
    model.close()
    with pytest.raises(BackendError):
        model.predict(make_image())


def test_a_model_without_a_threshold_decides_nothing() -> None:
    with Model(Counting(), SIZE, {"part": None}, "fake") as model, pytest.raises(InputError):
        model.predict(make_image())


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_never_a_decision(score: float) -> None:
    session = edgead.FakeSession(SIZE, score=score)
    with Model(session, SIZE, {"part": THRESHOLD}, "fake") as model, pytest.raises(BackendError):
        model.predict(make_image(bright=False))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_never_a_decision(value: float) -> None:
    class OneBadPixel(edgead.FakeSession):
        def infer(self, batch: Any) -> edgead.Prediction:
            prediction = super().infer(batch)
            prediction.anomaly_map[-1, 0, 3, 5] = value
            return prediction

    session = OneBadPixel(SIZE, score=0.25)
    with Model(session, SIZE, {"part": THRESHOLD}, "fake") as model:
        with pytest.raises(BackendError):
            model.predict(make_image())
        # The error says which of the images it is.
        with pytest.raises(BackendError) as caught:
            model.predict([make_image()] * 3)
    assert {"3"} <= set(caught.value.what.split())


@pytest.mark.parametrize("path", [7, None, b"bundle", "", "gone", ".", "notes.txt"])
def test_a_wrong_model_is_one_line(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine\n")
    calls = (
        lambda: edgead.load(path),
        lambda: edgead.build(path, "out"),
        lambda: edgead.evaluate(path, write_parts(tmp_path / "parts")),
        lambda: edgead.stream(path, "."),
    )
    for call in calls:
        with pytest.raises((InputError, RunError)) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_a_changed_bundle_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        edgead.load(bundle)


@pytest.mark.parametrize(
    ("data", "options", "kind"),
    [
        ([], {}, InputError),
        (7, {}, InputError),
        (["good", 7], {}, InputError),
        ("gone", {}, DataError),
        ("good", {"epoch": 3}, InputError),
        ("good", {"epochs": "3"}, InputError),
        ("good", {"epochs": True}, InputError),
        ("good", {"method": ["rd"]}, InputError),
        ("good", {"method": "magic"}, InputError),
        ("good", {"alignment": "tilted"}, InputError),
        ("good", {"size": 100}, InputError),
    ],
)
def test_a_wrong_argument_of_train_is_one_line_and_leaves_nothing(
    data: Any,
    options: dict[str, Any],
    kind: type[EdgeadError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "good", 4)
    with pytest.raises(kind) as caught:
        edgead.train(data, "run", **{"accelerator": "cpu", **options})
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"epochs": 100, "batch_size": 16, "learning_rate": 5e-3, "alignment": "auto", "size": "256"}),
        (
            {"method": "stfpm", "preset": "paper", "epochs": 3},
            {"epochs": 3, "batch_size": 32, "learning_rate": 0.4},
        ),
        ({"size": 64, "learning_rate": 1, "epochs": None}, {"size": "64", "learning_rate": 1, "epochs": 100}),
        ({"size": "64x96", "alignment": "aligned"}, {"size": "64x96", "alignment": "aligned"}),
        (
            {"alignment": "unaligned", "training_precision": "bf16-mixed"},
            {"alignment": "unaligned", "training_precision": "bf16-mixed"},
        ),
        ({"teacher_weights": Path("w.pt"), "seed": 3}, {"teacher_weights": "w.pt", "seed": 3}),
    ],
)
def test_options_of_train_reach_the_training(
    options: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[TrainConfig, Path]] = []
    monkeypatch.setattr(start, "train_run", lambda config, out, *_: asked.append((config, out)))
    monkeypatch.chdir(tmp_path)
    for name in ("nuts", "bolts"):
        write_images(tmp_path / name, 2)
    edgead.train([Path("nuts"), "bolts"], "run", accelerator="cpu", **options)
    ((config, out),) = asked
    assert (config.data, out) == ((str(tmp_path / "nuts"), str(tmp_path / "bolts")), Path("run"))
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_collapsed_run_is_an_error_and_a_finished_one_is_loaded(tmp_path: Path) -> None:
    small = {
        "teacher": TINY_TEACHER,
        "teacher_weights": "random",
        "size": 64,
        "batch_size": 4,
        "accelerator": "cpu",
    }
    data = write_images(tmp_path / "data", 4)
    with pytest.raises(edgead.EdgeadError):
        edgead.train(data, tmp_path / "run", epochs=1, **small)
    with pytest.raises(RunError):
        edgead.load(tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "state": "finished"}))
    with edgead.load(tmp_path / "run") as model:
        assert model.predict(data / "000.png").anomaly_map.shape == (64, 64)
    with pytest.raises(InputError):
        edgead.load(tmp_path / "run", threads=1)
    with pytest.raises(InputError):  # a run knows its own images
        edgead.build(tmp_path / "run", tmp_path / "out", data=data)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16"},
        {"false_alarm_rate": 0.05},
        {"target": "toaster"},
        {"target": 7},
        {"precision": "fp7", "data": "parts"},
        {"colour": "red"},
        {"confidence": "high"},
        {"data": []},
    ],
)
def test_a_wrong_option_of_build_is_one_line_and_leaves_nothing(
    bundle: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        edgead.build(bundle, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_evaluate_returns_the_metrics_of_the_dataset(tmp_path: Path) -> None:
    size = ModelSize(SIZE_PX, SIZE_PX)
    path = write_brightness_bundle(tmp_path / "bundle", size, Threshold(0.2, 0.01, 0.95, 0.95, 299, 299))
    data = write_parts(tmp_path / "parts")
    found = edgead.evaluate(str(path), str(data), out=str(tmp_path / "report"))
    opened = edgead.open_bundle(str(path))
    with edgead.open_session(opened) as session:
        scores = score_dataset(session, edgead.open_dataset(str(data)).test, size)
    assert found == evaluate(scores, opened.manifest.thresholds["washer"])
    assert (found.good, found.defect, found.misses) == (3, 4, 2)
    assert (tmp_path / "report/report.html").is_file()
    for wrong in ({"part": "nut"}, {"part": 7}, {"layout": ["mvtec"]}):
        with pytest.raises(InputError):
            edgead.evaluate(path, data, **wrong)
    with pytest.raises(DataError):
        edgead.evaluate(path, write_images(tmp_path / "good", 2))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), make_image(64, 64, bright=index == 1))
    return folder


def test_a_stream_gives_its_summary_and_every_region(bundle: Path, frames: Path, tmp_path: Path) -> None:
    lines = tmp_path / "verdicts.jsonl"
    summary = edgead.stream(str(bundle), frames, sinks=[f"jsonl:{lines}"])
    assert (summary.frames_scored, summary.rejected) == (3, 1)
    regions = [verdict["regions"] for verdict in verdicts_of(lines.read_text())]
    assert (regions[0], regions[2]) == ([], [])
    with edgead.load(bundle) as model:
        (expected,) = model.predict(frames / "1.png").regions
    ((region,),) = regions[1:2]
    assert tuple(region[name] for name in ("x_px", "y_px", "width_px", "height_px")) == expected.box
    assert [tuple(point) for point in region["polygon"]] == list(expected.polygon)
    assert edgead.stream(bundle, str(frames), [], max_frames=2).frames_scored == 2


def test_a_stream_runs_in_another_thread(bundle: Path, frames: Path) -> None:
    summaries: list[edgead.Summary] = []
    thread = threading.Thread(target=lambda: summaries.append(edgead.stream(bundle, frames, [])))
    thread.start()
    thread.join()
    assert [summary.frames_scored for summary in summaries] == [3]


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        ((None,), {}, InputError),
        ((True,), {}, InputError),
        (("gone",), {}, SourceError),
        ((9999,), {}, SourceError),
        (("frames", "status:"), {}, InputError),
        (("frames", [7]), {}, InputError),
        (("frames", ["magic:out"]), {}, SinkError),
        (("frames",), {"max_frames": 0}, InputError),
        (("frames",), {"max_frames": "all"}, InputError),
        (("frames",), {"threads": 0}, InputError),
        (("frames",), {"part": "nut"}, InputError),
    ],
)
def test_a_wrong_argument_of_stream_is_one_line(
    bundle: Path, frames: Path, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[EdgeadError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(frames.parent)
    with pytest.raises(kind) as caught:
        edgead.stream(bundle, *arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sinks", [ADDRESS, [ADDRESS, 7]])
def test_the_error_of_sinks_that_are_no_list_hides_their_password(bundle: Path, sinks: Any) -> None:
    with pytest.raises(InputError) as caught:
        edgead.stream(bundle, "frames", sinks)
    assert "secret" not in str(caught.value)


def test_a_given_threshold_decides_instead_of_the_bundles(bundle: Path, tmp_path: Path) -> None:
    grey = np.full((32, 64, 3), 51, np.uint8)
    with edgead.load(bundle) as model:
        own, given = model.predict(grey), model.predict(grey, threshold=0.1)
    assert (own.threshold, own.is_anomalous, own.share_of_threshold) == (0.5, False, pytest.approx(0.4))
    assert (given.threshold, given.is_anomalous, given.share_of_threshold) == (0.1, True, pytest.approx(2.0))
    with edgead.load(bundle, threshold=0.1) as model:
        assert model.predict(grey).threshold == 0.1
        assert model.predict(grey, threshold=0.3).threshold == 0.3
        assert model.thresholds["washer"] == THRESHOLD


def test_a_stream_with_a_given_threshold_says_so_in_every_verdict(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    cv2.imwrite(str(tmp_path / "grey" / "0.png"), np.full((32, 64, 3), 51, np.uint8))
    out = tmp_path / "verdicts.jsonl"
    edgead.stream(bundle, tmp_path / "grey", [f"jsonl:{out}"], threshold=0.1)
    (verdict,) = verdicts_of(out.read_text())
    assert (verdict["threshold"], verdict["is_anomalous"]) == (0.1, True)
    assert verdict["share_of_threshold"] == pytest.approx(2.0)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 0.0, -0.5, "0.5", True])
def test_a_threshold_that_is_no_number_above_0_is_one_line(
    bundle: Path, frames: Path, threshold: Any
) -> None:
    with pytest.raises(InputError):
        edgead.load(bundle, threshold=threshold)
    with pytest.raises(InputError):
        edgead.stream(bundle, frames, threshold=threshold)


def test_a_stream_keeps_the_threshold_of_its_start(bundle: Path) -> None:
    from edgead.bundle.set_threshold import change_threshold
    from edgead.bundle.threshold_changes import ThresholdChange
    from edgead.files.records import utc_now

    grey = np.full((32, 64, 3), 51, np.uint8)
    with edgead.load(bundle) as model:
        change = ThresholdChange("value", 0.1, 0, 0, 0, utc_now(), THRESHOLD)
        change_threshold(
            edgead.open_bundle(bundle), "washer", Threshold(0.1, None, None, None, 0, None), change
        )
        assert model.predict(grey).threshold == 0.5
    with edgead.load(bundle) as model:
        assert model.predict(grey).threshold == 0.1
