"""The page of a stream, read and changed by a real client over HTTP."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import beta

from edgead.bundle import open_bundle
from edgead.bundle.manifest import Manifest
from edgead.bundle.set_threshold import change_threshold
from edgead.bundle.threshold_changes import ThresholdChange
from edgead.errors import EdgeadError
from edgead.files.records import utc_now
from edgead.imaging.heatmap import overlay
from edgead.scoring.threshold import Threshold
from edgead.streaming import LineControl
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.drift import DriftWatch
from edgead.streaming.page import PageAddress, PageCamera
from edgead.streaming.page.feed import CHART_VERDICTS, PageFeed
from edgead.streaming.page.images import KEPT_REJECTS, MOST_PX, UNWATCHED_EVERY_S, PageImages, Snapshot
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.record import Record
from edgead.types import UInt8Array, Verdict
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.stream_page import (
    GOOD_SCORES,
    LOCAL,
    SIZE,
    Viewer,
    opened_page,
    page_bundle,
    page_camera,
    watched,
)
from tests.helpers.stream_parts import Records, frame, textured
from tests.helpers.trigger_parts import LIMIT_S, wait_until

MAP = np.zeros((SIZE.height_px, SIZE.width_px), np.float32)


def decoded(jpeg: bytes) -> UInt8Array:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1])


def verdict(index: int, score: float, threshold: float = 100.0) -> Verdict:
    return Verdict(index, score, threshold, score > threshold, 12.0, (), age_ms=20.0)


def test_the_numbers_and_images_follow_the_stream(tmp_path: Path) -> None:
    with watched(page_bundle(tmp_path)) as seen:
        assert seen.viewer.get("/live.jpg").status == 204
        seen.show(textured(50), textured(150), textured(70))
        numbers = seen.viewer.numbers()
        assert (numbers["state"], numbers["good"], numbers["rejected"], numbers["withheld"]) == (
            "running",
            2,
            1,
            0,
        )
        scores = [record["anomaly_score"] for record in seen.records.of("verdict")]
        assert numbers["scores"] == [[0, scores[0], False], [1, scores[1], True], [2, scores[2], False]]
        assert numbers["threshold"]["value"] == 100.0
        assert [reject["frame_index"] for reject in numbers["rejects"]] == [1]
        assert {sink["sink"] for sink in numbers["sinks"]} == {"Records", "page", "page, images"}
        found = seen.viewer.get(f"/image.jpg?number={numbers['rejects'][0]['number']}")
        assert found.headers["Content-Type"] == "image/jpeg"
        assert decoded(found.body).shape == (48, 80, 3)

        def live() -> bool:
            # The loop hands images over from the first request on, at most one in a while.
            seen.show(textured(90))
            answer = seen.viewer.get("/live.jpg")
            return answer.status == 200 and json.loads(answer.headers["X-Verdict"])["frame_index"] > 2

        wait_until(live)
        answer = seen.viewer.get("/live.jpg")
        about = json.loads(answer.headers["X-Verdict"])
        assert about["score"] == pytest.approx(90, abs=8)
        assert not about["is_anomalous"]
        assert decoded(answer.body).shape == (48, 80, 3)
        assert seen.viewer.get(f"/live.jpg?after={about['number']}").status == 204
    assert seen.records.states[-1][0] == "stopped"


def test_a_threshold_of_the_page_decides_and_stays_in_the_bundle_with_its_name(tmp_path: Path) -> None:
    bundle = page_bundle(tmp_path)
    with watched(bundle) as seen:
        seen.show(textured(90))
        answer = seen.viewer.post("/threshold", {"value": 85.5, "name": "  Kim\tLee "})
        assert answer.status == 200
        assert answer.json["value"] == 85.5
        seen.show(textured(90))
        before, after = seen.records.of("verdict")
        assert (before["threshold"], before["is_anomalous"]) == (100.0, False)
        assert (after["threshold"], after["is_anomalous"]) == (85.5, True)
        (record,) = seen.records.of("threshold")
        assert (record["part"], record["threshold"], record["previous"]) == (None, 85.5, 100.0)
        assert record["set_by"] == "Kim Lee, page, 127.0.0.1"
        (shown,) = seen.viewer.numbers()["threshold"]["changes"]
        assert (shown["set_by"], shown["previous"]) == (record["set_by"], 100.0)
    manifest = open_bundle(bundle.path).manifest
    (change,) = manifest.changes["washer"]
    assert manifest.thresholds["washer"].value == 85.5
    assert (change.set_by, change.rule, change.wanted, change.previous.value) == (
        record["set_by"],
        "value",
        85.5,
        100.0,
    )


def test_a_change_keeps_what_another_command_set_meanwhile(tmp_path: Path) -> None:
    bundle = page_bundle(tmp_path)
    with opened_page(LOCAL, page_camera(bundle)) as page:
        other = Threshold(70.0, None, None, None, 0, None)
        change = ThresholdChange(
            "value", 70.0, 0, 0, 0, utc_now(), bundle.manifest.thresholds["washer"], "Ali"
        )
        change_threshold(bundle, "washer", other, change)
        assert Viewer(page.port).post("/threshold", {"value": 85.5, "name": "Kim"}).status == 200
    changes = open_bundle(bundle.path).manifest.changes["washer"]
    assert [(one.set_by.partition(",")[0], one.previous.value) for one in changes] == [
        ("Ali", 100.0),
        ("Kim", 70.0),
    ]


def test_a_change_of_another_command_shows_at_once(tmp_path: Path) -> None:
    bundle = page_bundle(tmp_path)
    with opened_page(LOCAL, page_camera(bundle)) as page:
        viewer = Viewer(page.port)
        before = viewer.numbers()["threshold"]
        assert (before["in_bundle"], before["changes"]) == (None, [])
        change = ThresholdChange(
            "value", 70.0, 0, 0, 0, utc_now(), bundle.manifest.thresholds["washer"], "Ali"
        )
        change_threshold(bundle, "washer", Threshold(70.0, None, None, None, 0, None), change)
        after = viewer.numbers()["threshold"]
        # The stream decides with its own one until its next start.
        assert (after["value"], after["in_bundle"]) == (100.0, 70.0)
        assert [one["set_by"] for one in after["changes"]] == ["Ali"]
        # A bundle that is away changes nothing.
        bundle.path.rename(tmp_path / "away")
        assert viewer.numbers()["threshold"] == after


def test_a_verdict_ends_on_the_page_with_an_image_that_gets_none() -> None:
    feed = PageFeed()
    with Deliveries([feed], waits=True, survives=True) as outputs:
        assert feed.overview()["is_anomalous"] is None
        outputs.verdict(frame(textured(9)), verdict(0, 150.0), MAP)
        wait_until(lambda: feed.overview()["is_anomalous"] is True)
        assert feed.overview()["no_verdict"] is None
        outputs.no_verdict("the image is dark")
        wait_until(lambda: feed.overview()["no_verdict"] == "the image is dark")
        outputs.verdict(frame(textured(9)), verdict(1, 50.0), MAP)
        wait_until(lambda: feed.overview()["no_verdict"] is None)
        assert feed.overview()["is_anomalous"] is False


def test_changes_of_two_viewers_reach_the_stream_in_the_order_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, line = page_bundle(tmp_path), LineControl()
    desk, set_threshold = ThresholdDesk(100.0, "washer", bundle, line), line.set_threshold

    def late(value: float, by: str) -> None:
        # Another viewer sets a threshold just before the stream gets the one of the first.
        monkeypatch.setattr(line, "set_threshold", set_threshold)
        with suppress(EdgeadError):
            desk.set(70.0, "Ali")
        set_threshold(value, by)

    monkeypatch.setattr(line, "set_threshold", late)
    desk.set(85.5, "Kim")
    taken = []
    while (new := line.take_threshold()) is not None:
        taken.append(new.value)
    assert taken[-1] == desk.value == open_bundle(bundle.path).manifest.thresholds["washer"].value


def test_a_change_that_cannot_be_kept_changes_nothing(tmp_path: Path) -> None:
    bundle = page_bundle(tmp_path)
    with opened_page(LOCAL, camera := page_camera(bundle)) as page:
        viewer = Viewer(page.port)
        # The bundle was built again, so its scores may be others.
        write_brightness_bundle(bundle.path, SIZE, Threshold(0.5, None, None, None, 0, None), gain=2.0)
        again = open_bundle(bundle.path).manifest
        assert viewer.post("/threshold", {"value": 85.5, "name": "Kim"}).status == 409
        (bundle.path / "manifest.json").unlink()
        assert viewer.post("/threshold", {"value": 85.5, "name": "Kim"}).status == 409
        assert camera.line.take_threshold() is None
        assert viewer.numbers()["threshold"]["value"] == 100.0
    assert isinstance(again, Manifest)
    assert not again.changes
    with opened_page(LOCAL, camera := page_camera(None)) as page:
        viewer = Viewer(page.port)
        assert viewer.post("/threshold", {"value": 85.5, "name": "Kim"}).status == 409
        assert not viewer.numbers()["threshold"]["can_change"]
        assert camera.line.take_threshold() is None


@pytest.mark.parametrize("value", ["85", None, True, -1, 0, [], {}, pytest.param(10**400, id="huge")])
def test_a_value_that_is_no_threshold_is_refused(tmp_path: Path, value: object) -> None:
    bundle = page_bundle(tmp_path)
    with opened_page(LOCAL, camera := page_camera(bundle)) as page:
        assert Viewer(page.port).post("/threshold", {"value": value, "name": "Kim"}).status in (400, 409)
        assert camera.line.take_threshold() is None
    assert open_bundle(bundle.path).manifest == bundle.manifest


@pytest.mark.parametrize("name", [None, "", "  ", "x" * 61, "\u202ekim", 5])
def test_a_change_needs_a_name(tmp_path: Path, name: object) -> None:
    with opened_page(LOCAL, camera := page_camera(page_bundle(tmp_path))) as page:
        viewer = Viewer(page.port)
        for path in ("/threshold", "/pause", "/resume"):
            assert viewer.post(path, {"value": 85.5, "name": name}).status == 400
        assert camera.line.take_threshold() is None
        assert not camera.line.is_paused


def test_the_prediction_counts_the_good_images_of_the_build(tmp_path: Path) -> None:
    with opened_page(LOCAL, page_camera(page_bundle(tmp_path))) as page:
        viewer = Viewer(page.port)
        for value in (0.0, 45.0, 45.5, 79.9, 80.0, 1e9):
            found = viewer.get(f"/prediction?threshold={value}").json
            above, n = sum(score > value for score in GOOD_SCORES), len(GOOD_SCORES)
            low = beta.ppf(0.025, above, n - above + 1) if above else 0.0
            high = beta.ppf(0.975, above + 1, n - above) if above < n else 1.0
            assert (found["above"], found["images"]) == (above, n)
            assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-9)
        for text in ("", "x", "nan", "inf"):
            assert viewer.get(f"/prediction?threshold={text}").status == 400
        threshold = viewer.numbers()["threshold"]
        assert threshold["lowest"] < min(GOOD_SCORES) < 100.0 < threshold["highest"]
    # A bundle without the scores can be streamed, too.
    plain = write_brightness_bundle(tmp_path / "plain", SIZE, Threshold(100.0, None, None, None, 0, None))
    with opened_page(LOCAL, page_camera(open_bundle(plain))) as page:
        assert Viewer(page.port).get("/prediction?threshold=5").json["images"] == 0


def test_the_page_pauses_and_resumes(tmp_path: Path) -> None:
    with watched(page_bundle(tmp_path)) as seen:
        seen.show(textured(50))
        assert seen.viewer.post("/pause", {"name": "Kim"}).json == {"is_paused": True}
        wait_until(lambda: seen.viewer.numbers()["state"] == "paused")
        assert seen.line.is_paused
        assert seen.viewer.post("/resume", {"name": "Kim"}).json == {"is_paused": False}
        seen.show(textured(51))
        wait_until(lambda: seen.viewer.numbers()["state"] == "running")
    by = [(one["state"], one["set_by"]) for one in seen.records.of("state")]
    assert by[2:4] == [("paused", "Kim, page, 127.0.0.1"), ("running", "Kim, page, 127.0.0.1")]


def test_the_page_compares_good_parts_with_the_build() -> None:
    line, drift = LineControl(), DriftWatch({"brightness": [float(level) for level in range(101)]})
    with opened_page(
        LOCAL, PageCamera("left", ThresholdDesk(100.0, "washer", None, line), line, drift)
    ) as page:
        viewer = Viewer(page.port)
        (before,) = viewer.numbers()["drift"]
        assert before == {"quantity": "brightness", "low": 10.0, "median": 50.0, "high": 90.0, "now": None}
        for level in (20.0, 30.0, 70.0):
            drift.add({"brightness": level})
        assert viewer.numbers()["drift"][0]["now"] == 30.0


def test_an_open_page_finds_the_next_stream(tmp_path: Path) -> None:
    bundle, token = page_bundle(tmp_path), "0123456789abcdef"
    with opened_page(PageAddress("127.0.0.1", 0, token), page_camera(bundle)) as page:
        viewer = Viewer(page.port)
        assert viewer.login(token).status == 204
        first = viewer.numbers()["run"]
    with pytest.raises(ConnectionRefusedError):
        viewer.numbers()
    with opened_page(PageAddress("127.0.0.1", viewer.port, token), page_camera(bundle)):
        assert viewer.numbers()["run"] != first


def test_memory_stays_bounded_and_the_last_rejects_are_kept() -> None:
    images, feed = PageImages(), PageFeed()
    large = np.zeros((1200, 2000, 3), np.uint8)
    images.write(frame(large, 0), verdict(0, 150.0), MAP)
    (reject,) = images.rejects()
    assert decoded(reject.jpeg()).shape == (MOST_PX * 3 // 5, MOST_PX, 3)
    # Not every reject of a burst is handed over.
    assert not images.wants(verdict(1, 150.0))
    for index in range(3 * KEPT_REJECTS):
        images._reject_at_s = float("-inf")
        assert images.wants(verdict(index, 150.0))
        images.write(frame(textured(9), index), verdict(index, 150.0), MAP)
    kept = [one.verdict.frame_index for one in images.rejects()]
    assert kept == list(range(3 * KEPT_REJECTS))[: -KEPT_REJECTS - 1 : -1]
    for index in range(5000):
        feed.write(frame(textured(9), index), verdict(index, 1.0), MAP)
    numbers = feed.numbers()
    assert [score[0] for score in numbers["scores"]] == list(range(5000 - CHART_VERDICTS, 5000))
    assert numbers["good"] == 5000
    assert numbers["rate"] > 100
    assert (numbers["latency_ms"], numbers["age_ms"]) == (
        {"p50": 12.0, "p99": 12.0},
        {"p50": 20.0, "p99": 20.0},
    )


def test_an_image_has_its_heat_map() -> None:
    heat = np.zeros((SIZE.height_px, SIZE.width_px), np.float32)
    heat[8:24, 8:24] = 180.0
    image = textured(90, 320, 640)
    drawn = decoded(Snapshot(1, frame(image), verdict(0, 180.0), heat).jpeg()).astype(np.float32)
    expected = overlay(image, heat, 100.0).astype(np.float32)
    assert np.abs(drawn - expected).mean() < 6.0 < np.abs(drawn - image).mean()


def test_images_that_wait_for_a_slow_log_are_few_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.page.images.REJECT_EVERY_S", 0.0)
    go_on, images = threading.Event(), PageImages()

    class Slow(Records):
        def record(self, record: Record) -> None:
            assert go_on.wait(LIMIT_S)
            super().record(record)

    with Deliveries([Slow(), images], waits=False, survives=True) as outputs:
        for index in range(5 * images.capacity):
            outputs.verdict(frame(textured(9), index), verdict(index, 150.0), MAP)
        go_on.set()
        outputs.finish()
        (_, count) = outputs.counts()
    assert (count.written, count.lost) == (len(images.rejects()), 0)
    assert 0 < count.written < images.capacity


def test_few_images_are_handed_over_while_nobody_watches() -> None:
    images = PageImages()
    assert images.wants(verdict(0, 1.0))
    images.write(frame(textured(9), 0), verdict(0, 1.0), MAP)
    images._live_at_s -= UNWATCHED_EVERY_S / 2
    assert not images.wants(verdict(1, 1.0))
    # Whoever looks then sees an image at once, and more of them from now on.
    assert images.live() is not None
    assert images.wants(verdict(2, 1.0))
    images.write(frame(textured(9), 2), verdict(2, 1.0), MAP)
    images._watched_at_s -= 60
    images._live_at_s -= UNWATCHED_EVERY_S / 2
    assert not images.wants(verdict(3, 1.0))
    images._live_at_s -= UNWATCHED_EVERY_S
    assert images.wants(verdict(4, 1.0))
