"""`edgead.load` and `Model.predict`."""

from __future__ import annotations

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
    EdgeadError,
    ImageError,
    InputError,
    RunError,
)
from edgead.imaging.decode import read_image
from edgead.runtime.model import BATCH, Model
from tests.helpers.api_parts import SIZE, THRESHOLD, make_image, of_parts
from tests.helpers.parts_on_disk import write_parts


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
