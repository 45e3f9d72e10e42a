"""Images that viewers mark: they are kept as they came, once, with their record, and within the budget."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgead.data import open_dataset
from edgead.errors import EdgeadError, InputError, StreamError
from edgead.evaluation.threshold_setting import samples_of_folders
from edgead.imaging.decode import read_image
from edgead.streaming.line import LineControl
from edgead.streaming.page import PageCamera
from edgead.streaming.page.feedback import FeedbackAddress, FeedbackFolder, read_feedback_address, stem_of
from edgead.streaming.page.images import KEPT_OPENED, KEPT_RECENT, PageImages
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.types import UInt8Array, Verdict
from tests.helpers.stream_page import LOCAL, SIZE, Viewer, opened_page, page_bundle, page_camera, watched
from tests.helpers.stream_parts import frame, textured
from tests.helpers.trigger_parts import wait_until

MAP = np.zeros((SIZE.height_px, SIZE.width_px), np.float32)


def verdict(index: int, score: float) -> Verdict:
    return Verdict(index, score, 100.0, score > 100.0, 12.0, (), age_ms=20.0)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*") if path.is_file()}


def noise(number: int) -> UInt8Array:
    return np.random.default_rng(number).integers(0, 256, (48, 80, 3), np.uint8)


def test_marked_images_are_a_dataset_for_thresholds_and_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.page.page.MARK_EVERY_S", 0.0)
    folder, address = tmp_path / "feedback", FeedbackAddress(tmp_path / "feedback")
    with watched(page_bundle(tmp_path), feedback=FeedbackFolder(address, {"washer"})) as seen:
        assert seen.viewer.get("/live.jpg").status == 204
        seen.show(reject := textured(150))
        (shown,) = seen.viewer.numbers()["rejects"]
        run = seen.viewer.numbers()["run"]

        def mark(number: int, label: str | None) -> int:
            content = {"camera": "camera1", "run": run, "number": number, "label": label, "name": "Kim"}
            return seen.viewer.post("/mark", content).status

        # Of the good images, one that a viewer has opened stays.
        good = textured(60)

        def opens_a_good_one() -> bool:
            seen.show(good)
            answer = seen.viewer.get("/live.jpg")
            about = json.loads(answer.headers["X-Verdict"] or "{}")
            if about.get("is_anomalous", True):
                return False
            opened.append(about["number"])
            return seen.viewer.get(f"/image.jpg?number={about['number']}").status == 200

        opened: list[int] = []
        wait_until(opens_a_good_one)
        assert mark(shown["number"], "good") == 200
        assert mark(opened[-1], "defect") == 200
        assert seen.viewer.numbers()["rejects"][0]["label"] == "good"
        about = seen.viewer.get(f"/image.jpg?number={opened[-1]}").headers["X-Verdict"]
        assert json.loads(about or "")["label"] == "defect"
    dataset = open_dataset(folder / "washer")
    assert (dataset.layout, [sample.label for sample in dataset.test]) == ("folder", [1])
    assert not dataset.left_out
    (kept,) = dataset.train
    np.testing.assert_array_equal(read_image(kept.path), reject)
    (defect,) = dataset.test
    np.testing.assert_array_equal(read_image(defect.path), good)
    found = samples_of_folders(folder / "washer", folder / "washer")
    assert ([one.path for one in found.good], [one.path for one in found.defects]) == (
        [kept.path],
        [defect.path],
    )
    record = json.loads(kept.path.with_suffix(".json").read_text())
    score = seen.records.of("verdict")[0]["anomaly_score"]
    assert {name: record[name] for name in record if name not in ("marked_at", "model_sha256")} == {
        "label": "good",
        "marked_by": "Kim, page, 127.0.0.1",
        "camera": "camera1",
        "part": "washer",
        "source": "test",
        "frame_index": 0,
        "anomaly_score": score,
        "threshold": 100.0,
        "is_anomalous": True,
        "schema": 1,
    }


def test_the_last_mark_counts_and_can_be_taken_back(tmp_path: Path) -> None:
    # There is room for two marks, so an image that is marked again must not count once more.
    feedback = FeedbackFolder(FeedbackAddress(tmp_path, 5 * noise(1).nbytes // 2), {"washer"})
    camera = page_camera(None, feedback=feedback)
    camera.images.write(frame(noise(1)), verdict(4, 150.0), MAP)
    for label in ("good", "defect", "defect", "good"):
        camera.mark(1, label, "Kim")
        (kept,) = files(tmp_path)
        assert kept.split("/")[:2] == ["washer", label]
        assert np.array_equal(read_image(tmp_path / f"{kept}.png"), noise(1))
    camera.mark(1, None, "Kim")
    camera.mark(1, None, "Kim")
    assert files(tmp_path) == set()


def test_a_mark_in_a_full_folder_can_be_corrected_and_a_kill_leaves_one_label(tmp_path: Path) -> None:
    folder = tmp_path / "washer"
    camera = page_camera(None, feedback=FeedbackFolder(FeedbackAddress(tmp_path), {"washer"}))
    camera.images.write(frame(noise(1)), verdict(4, 150.0), MAP)
    camera.mark(1, "good", "Kim")
    # Another stream fills the folder, with images of another part.
    other = tmp_path / "tablet" / "good"
    other.mkdir(parents=True)
    (kept,) = (folder / "good").glob("*.png")
    (other / kept.name).write_bytes(b"x" * 1000)
    full = FeedbackFolder(FeedbackAddress(tmp_path, 1000), {"washer"})
    camera._feedback = full
    camera.mark(1, "defect", "Ali")
    (moved,) = folder.rglob("*.png")
    assert moved == folder / "defect" / kept.name
    assert json.loads(moved.with_suffix(".json").read_text())["marked_by"] == "Ali"
    camera.images._reject_at_s = float("-inf")
    camera.images.write(frame(noise(2)), verdict(5, 150.0), MAP)
    with pytest.raises(StreamError):
        camera.mark(2, "good", "Kim")
    # A kill before the image has moved, and after it: the record of the other label has no image.
    (folder / "good" / moved.name).with_suffix(".json").write_text("{}")
    FeedbackFolder(FeedbackAddress(tmp_path), {"washer"})
    assert files(folder) == {f"defect/{moved.stem}"}


def test_a_full_folder_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    one = FeedbackFolder(FeedbackAddress(tmp_path / "one"), {"washer"})
    camera = page_camera(None, feedback=one)
    camera.images.write(frame(noise(0)), verdict(0, 150.0), MAP)
    camera.mark(1, "good", "Kim")
    size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*") if path.is_file())
    budget = FeedbackAddress(tmp_path / "two", 3 * size + size // 2)

    def mark(folder: FeedbackFolder, numbers: range) -> list[bool]:
        done = []
        camera = page_camera(None, feedback=folder)
        for number in numbers:
            camera.images._reject_at_s = float("-inf")
            camera.images.write(frame(noise(number)), verdict(number, 150.0), MAP)
            try:
                camera.mark(number - numbers[0] + 1, "good", "Kim")
            except StreamError:
                done.append(False)
            else:
                done.append(True)
        return done

    assert mark(FeedbackFolder(budget, {"washer"}), range(5)) == [True, True, True, False, False]
    before = files(tmp_path / "two")
    # What a kill left behind is removed, and images of earlier streams count.
    (partial,) = [
        path.with_name(f".{path.name}.12-3.partial") for path in [next((tmp_path / "two").rglob("*.png"))]
    ]
    partial.write_bytes(b"x")
    (tmp_path / "two" / "washer" / "good" / "of somebody else.png").write_bytes(b"x" * 10 * size)
    assert mark(FeedbackFolder(budget, {"washer"}), range(5, 7)) == [False, False]
    assert files(tmp_path / "two") == before | {"washer/good/of somebody else"}


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    camera = page_camera(None, feedback=FeedbackFolder(FeedbackAddress(tmp_path / "f"), {"washer"}))
    camera.images.write(frame(noise(0)), verdict(0, 150.0), MAP)
    good = tmp_path / "f" / "washer" / "good"
    good.rmdir()
    good.write_text("a file in its place")
    with opened_page(LOCAL, camera) as page:
        viewer = Viewer(page.port)
        mark = {"run": page.run, "number": 1, "label": "good", "name": "Kim"}
        assert viewer.post("/mark", mark).status == 409
        # The numbers of images begin anew with each stream, so the mark of an older page is of another image.
        assert viewer.post("/mark", {**mark, "run": "another"}).status == 409
        assert viewer.numbers()["rejects"][0]["label"] is None
        # Marks come at a rate that costs the loop nothing.
        assert viewer.post("/mark", mark).status == 429
    assert os.listdir(tmp_path / "f" / "washer" / "defect") == []
    # The record is written before the image, but does not stay without it.
    defect, (snapshot,) = tmp_path / "f" / "washer" / "defect", camera.images.rejects()
    image = defect / f"{stem_of(snapshot.time, camera.name, 0)}.png"
    (image / "a folder in its place").mkdir(parents=True)
    with pytest.raises(EdgeadError):
        camera.mark(1, "defect", "Kim")
    assert os.listdir(defect) == [image.name]
    (tmp_path / "file").write_text("")
    for name in ("file", "null\0"):
        with pytest.raises(StreamError):
            FeedbackFolder(FeedbackAddress(tmp_path / name), {"washer"})


@pytest.mark.parametrize("part", ["../washer", "/etc", "a/b", "..", ".hidden"])
def test_a_name_of_a_part_does_not_lead_out_of_the_folder(part: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        FeedbackFolder(FeedbackAddress(tmp_path / "f"), {part})
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_can_be_marked_and_no_original_is_kept() -> None:
    camera = page_camera(None)
    camera.images.write(frame(noise(0)), verdict(0, 150.0), MAP)
    with pytest.raises(EdgeadError):
        camera.mark(1, "good", "Kim")
    assert camera.images.rejects()[0].original is None


def test_cameras_share_the_memory_for_images_as_they_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgead.streaming.page.camera.MOST_ORIGINAL_BYTES", 4 * noise(0).nbytes)
    line, feedback = LineControl(), FeedbackFolder(FeedbackAddress(tmp_path), {"washer"})
    for cameras, kept in ((1, 4), (4, 1)):
        desk = ThresholdDesk(100.0, "washer", None, line)
        camera = PageCamera("left", desk, line, None, feedback, None, cameras)
        for number in range(6):
            camera.images.write(frame(noise(number), number), verdict(number, 1.0), MAP)
        assert sum(one.original is not None for one in camera.images._recent) == kept


def test_images_as_they_came_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = PageImages(5 * noise(0).nbytes)
    for number in range(1, 4 * KEPT_RECENT):
        images.write(frame(noise(number), number), verdict(number, 1.0), MAP)
        if number in (3, 4):
            assert images.open(number) is not None
    newest = 4 * KEPT_RECENT - 1
    with_original = [
        number
        for number in range(1, newest + 1)
        if (found := next((one for one in (*images._opened, *images._recent) if one.number == number), None))
        and found.original is not None
    ]
    # The opened ones, and the newest.
    assert with_original == [3, 4, newest - 2, newest - 1, newest]
    assert images.open(5) is None
    for number in range(newest - 5, newest + 1):
        images.open(number)
    assert len(images._opened) == KEPT_OPENED


@pytest.mark.parametrize("text", ["", "?max_mb=5", "f?max_mb=0", "f?max_mb=x", "f?keep=3"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_feedback_address(text)
    assert read_feedback_address("a folder?max_mb=2.5") == FeedbackAddress(Path("a folder"), 2_500_000)
