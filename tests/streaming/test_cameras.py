"""Several cameras on one session: none of them delays, stops or changes another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest

from edgead.errors import ImageError, SinkError, SourceError
from edgead.imaging.framing import Box
from edgead.imaging.preprocess import batch_from_images
from edgead.imaging.view import View, read_roi
from edgead.runtime import FakeSession
from edgead.streaming import LineControl, StreamPolicy, open_source
from edgead.streaming.camera import Camera
from edgead.streaming.judge import TICK_S, Judge
from edgead.streaming.loop import stream_cameras
from edgead.streaming.record import Record as WrittenRecord
from edgead.streaming.sinks import Sink
from edgead.streaming.sinks.base import SinkCount, StopStream
from edgead.streaming.sources import Source
from edgead.types import Float32Array, Frame, Prediction, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource, frame, textured
from tests.helpers.trigger_parts import LIMIT_S, wait_until


def level_of(image: UInt8Array) -> float:
    return float(image.min())


def camera(
    name: str,
    script: Callable[[], Iterator[UInt8Array]],
    *sinks: Sink,
    live: bool = True,
    threshold: float = 100.0,
    policy: StreamPolicy | None = None,
    line: LineControl | None = None,
) -> Camera:
    source = ScriptedSource(script, live)
    policy, line = policy or StreamPolicy(f"part of {name}"), line or LineControl()
    return Camera(source, sinks, threshold, policy, line, name)


def test_a_camera_that_hangs_a_slow_one_and_a_fast_one_do_not_disturb_each_other() -> None:
    records, stop, release = Records(), threading.Event(), threading.Event()

    def hung() -> Iterator[UInt8Array]:
        """A camera that gives one image, and then its driver hangs."""
        yield textured(50)
        release.wait(LIMIT_S)

    cameras = [
        Camera(open_source(f"synthetic:washer?size=64&fps={fps}"), [], 100.0, name=name)
        for name, fps in (("slow", 1), ("fast", 60))
    ]
    cameras.append(camera("hung", hung))

    def of(name: str) -> list[int]:
        return [one["frame_index"] for one in records.of("verdict") if one["camera"] == name]

    def end() -> None:
        wait_until(lambda: len(of("slow")) >= 2)
        stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    found = stream_cameras(FakeSession(SIZE, score=level_of), cameras, size=SIZE, sinks=[records], stop=stop)
    thread.join()
    release.set()
    for one in cameras[:2]:
        one.source.close()
    wait_until(lambda: "edgead-capture" not in [one.name for one in threading.enumerate()])
    assert of("hung") == [0]
    assert of("slow")[:2] == [0, 1]
    # Between the first two images of a camera with one a second, the other has 60, but the machine may be busy.
    names = [one["camera"] for one in records.of("verdict")]
    first = names.index("slow")
    assert names[first : names.index("slow", first + 1)].count("fast") >= 5
    seen = found.cameras["fast"]
    assert seen.frames_scored + seen.frames_dropped + seen.frames_withheld == seen.frames_seen
    assert {name: one.frames_broken for name, one in found.cameras.items()} == dict.fromkeys(found.cameras, 0)


def test_each_camera_has_its_own_threshold_part_state_counts_and_sinks() -> None:
    shared, own = Records(), {name: Records() for name in ("left", "right")}
    images = {"left": [50, 150, 160], "right": [150, 60, 0]}

    def script(name: str) -> Callable[[], Iterator[UInt8Array]]:
        # The last image of the right camera is of one colour.
        return lambda: (
            textured(level) if level else np.zeros((48, 80, 3), np.uint8) for level in images[name]
        )

    cameras = [
        camera("left", script("left"), own["left"], live=False, threshold=100.0),
        camera("right", script("right"), own["right"], live=False, threshold=55.0),
    ]
    found = stream_cameras(FakeSession(SIZE, score=level_of), cameras, size=SIZE, sinks=[shared])
    for name, threshold, decisions in (
        ("left", 100.0, [False, True, True]),
        ("right", 55.0, [True, True, False]),
    ):
        verdicts = own[name].of("verdict")
        assert [one["is_anomalous"] for one in verdicts] == decisions
        assert {(one["camera"], one["threshold"], one["part"]) for one in verdicts} == {
            (name, threshold, f"part of {name}")
        }
        assert own[name].states == [("starting",), ("running",), ("stopped",)]
        assert [one for one in shared.records if one["camera"] == name] == own[name].records
        assert (found.cameras[name].frames_scored, found.cameras[name].rejected) == (3, 2)
    assert len(shared.records) == sum(len(one.records) for one in own.values())


def test_cameras_take_turns_however_many_frames_one_has() -> None:
    """Two files have a frame at every moment, so each gets every second turn."""
    records, given, scored = Records(), {"a": 0, "b": 0}, [0]

    def script(name: str) -> Iterator[UInt8Array]:
        for level in range(1, 41):
            given[name] += 1
            yield textured(level)
        given[name] = 1000

    def score(image: UInt8Array) -> float:
        if image.min() > 0:  # no image of the warm-up
            scored[0] += 1
            # Each file has given all frames that were taken, the next one, and begun with another.
            wait_until(lambda: min(given.values()) >= (scored[0] + 1) // 2 + 2)
        return 1.0

    cameras = [camera(name, partial(script, name), live=False) for name in ("a", "b")]
    stream_cameras(FakeSession(SIZE, score=score), cameras, size=SIZE, sinks=[records])
    names = [one["camera"] for one in records.of("verdict")]
    assert names in (["a", "b"] * 40, ["b", "a"] * 40)


class Batches(FakeSession):
    """A session that keeps the levels of the images in each batch."""

    def __init__(self) -> None:
        super().__init__(SIZE, score=level_of)
        self.levels: list[list[float]] = []

    def infer(self, batch: UInt8Array) -> Prediction:
        self.levels.append([level_of(image) for image in batch])
        return super().infer(batch)


def test_frames_of_ready_cameras_are_scored_together_and_keep_their_own_verdicts() -> None:
    session, kept = Batches(), {name: Record() for name in "abc"}
    levels = {"a": 40, "b": 80, "c": 120}

    def script(name: str) -> Callable[[], Iterator[UInt8Array]]:
        return lambda: (textured(levels[name] + number) for number in range(30))

    cameras = [camera(name, script(name), kept[name], live=False) for name in "abc"]
    stream_cameras(session, cameras, size=SIZE, batch=2)
    assert max(map(len, session.levels)) == 2
    # The first batches warm up: one for each size.
    assert [len(batch) for batch in session.levels[:2]] == [1, 2]
    for batch in session.levels[2:]:
        assert len({int(level) // 40 for level in batch}) == len(batch)
    for name, record in kept.items():
        expected = [level_of(batch_from_images([textured(levels[name] + n)], SIZE)[0]) for n in range(30)]
        assert [verdict.anomaly_score for verdict in record.verdicts] == pytest.approx(expected, rel=1e-6)
        assert [float(one.max()) for one in record.maps] == pytest.approx(expected, rel=1e-6)


def test_a_pause_and_a_threshold_are_of_one_camera_and_name_who_set_them() -> None:
    records, lines = Records(), {name: LineControl() for name in ("left", "right")}
    came = threading.Event()

    def verdicts(name: str) -> list[float]:
        return [one["threshold"] for one in records.of("verdict") if one["camera"] == name]

    def left() -> Iterator[UInt8Array]:
        yield textured(50)
        wait_until(lambda: verdicts("left"))
        lines["left"].pause("Kim")
        wait_until(lambda: ("paused", "left", "Kim") in states())
        yield textured(51)
        # The cameras take turns, so this image is withheld before the last one of two on the right gets its verdict.
        came.set()
        wait_until(lambda: len(verdicts("right")) == 3)
        lines["left"].resume("Ali")
        wait_until(lambda: ("running", "left", "Ali") in states())

    def right() -> Iterator[UInt8Array]:
        yield textured(60)
        wait_until(lambda: ("paused", "left", "Kim") in states())
        lines["right"].set_threshold(30.0, "Lee")
        came.wait()
        for level in (61, 62):
            yield textured(level)
            wait_until(lambda: verdicts("right")[1:])
        wait_until(lambda: ("running", "left", "Ali") in states())

    def states() -> list[tuple[str, str, str | None]]:
        return [(one["state"], one["camera"], one["set_by"]) for one in records.of("state")]

    cameras = [camera(name, script, line=lines[name]) for name, script in (("left", left), ("right", right))]
    stream_cameras(FakeSession(SIZE), cameras, size=SIZE, sinks=[records])
    assert (verdicts("left"), verdicts("right")) == ([100.0], [100.0, 30.0, 30.0])
    assert [(one["camera"], one["set_by"]) for one in records.of("threshold")] == [("right", "Lee")]
    assert [state for state, name, by in states() if by is None and name == "left"] == [
        "starting",
        "running",
        "stopped",
    ]


def test_a_sink_that_is_slow_for_a_file_delays_no_other_file() -> None:
    go_on, quick = threading.Event(), Record()

    class Slow(Record):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            assert go_on.wait(LIMIT_S)
            super().write(frame, verdict, anomaly_map)

    slow, count = Slow(), 3 * Slow.capacity

    def script() -> Iterator[UInt8Array]:
        yield from (textured(level) for level in range(count))

    def watch() -> None:
        wait_until(lambda: len(quick.verdicts) == count)
        go_on.set()

    thread = threading.Thread(target=watch)
    thread.start()
    cameras = [camera("slow", script, slow, live=False), camera("quick", script, quick, live=False)]
    found = stream_cameras(FakeSession(SIZE), cameras, size=SIZE)
    thread.join()
    assert [len(slow.verdicts), len(quick.verdicts)] == [count, count]
    assert [count.lost for one in found.cameras.values() for count in one.sinks] == [0, 0]


def test_a_stream_without_frames_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, looks, next_frame = threading.Event(), list[int](), Judge.take

    def count(judge: Judge) -> tuple[Frame, int] | None:
        looks.append(len(looks))
        return next_frame(judge)

    def silent() -> Iterator[UInt8Array]:
        yield textured(50)
        stop.wait(5 * TICK_S)
        stop.set()

    monkeypatch.setattr(Judge, "take", count)
    stream_cameras(
        FakeSession(SIZE), [camera(name, silent) for name in ("left", "right")], size=SIZE, stop=stop
    )
    # A loop that does not wait looks thousands of times.
    assert len(looks) < 100


def test_a_file_whose_sink_is_full_ends_later_and_delays_no_other() -> None:
    go_on, quick = threading.Event(), Record()

    class Slow(Records):
        capacity = 4

        def record(self, record: WrittenRecord) -> None:
            assert go_on.wait(LIMIT_S)
            super().record(record)

    def watch() -> None:
        wait_until(lambda: len(quick.verdicts) == 50)
        go_on.set()

    def script(count: int) -> Callable[[], Iterator[UInt8Array]]:
        return lambda: (textured(level) for level in range(count))

    thread = threading.Thread(target=watch)
    thread.start()
    # With one of these numbers the queue is full at the end of the file.
    slow = {count: Slow() for count in range(1, 6)}
    cameras = [camera(f"slow{count}", script(count), sink, live=False) for count, sink in slow.items()]
    cameras.append(camera("quick", script(50), quick, live=False))
    found = stream_cameras(FakeSession(SIZE), cameras, size=SIZE)
    thread.join()
    assert [len(sink.of("verdict")) for sink in slow.values()] == list(slow)
    assert {count.lost for one in found.cameras.values() for count in one.sinks} == {0}


def test_a_camera_ends_alone_and_its_number_of_frames_is_its_own() -> None:
    records = Records()
    cameras = [
        camera(
            name,
            lambda: (textured(level % 200) for level in range(1000)),
            live=False,
            policy=StreamPolicy(max_frames=n_frames),
        )
        for name, n_frames in (("short", 3), ("long", 9))
    ]
    found = stream_cameras(FakeSession(SIZE), cameras, size=SIZE, sinks=[records])
    assert {name: one.frames_scored for name, one in found.cameras.items()} == {"short": 3, "long": 9}
    ends = [one["camera"] for one in records.of("state") if one["state"] == "stopped"]
    assert ends == ["short", "long"]
    last = records.records.index(next(one for one in records.of("state") if one["state"] == "stopped"))
    assert {one["camera"] for one in records.records[last + 1 :]} == {"long"}


def test_a_camera_sees_its_region_alone() -> None:
    """The checks, the view of the bundle, the scores and the sinks have the region in place of the image."""
    policy = StreamPolicy(region=Box(40, 8, 20, 30), view=View(roi=read_roi("0,0,20,15")))
    images = [np.zeros((48, 80, 3), np.uint8) for _ in range(2)]
    for image, level in zip(images, (50, 200), strict=True):
        image[8:38, 40:60] = textured(level, 30, 20)
    # The view of the bundle leaves the lower half of the region out.
    images[0][23:] = 255

    class Kept(Record):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            shapes.append(frame.image.shape)
            super().write(frame, verdict, anomaly_map)

    shapes = list[tuple[int, ...]]()
    kept = Kept()
    cameras = [
        camera("part", lambda: iter(images), kept, live=False, policy=policy),
        camera("whole", lambda: iter(images), live=False),
    ]
    stream_cameras(FakeSession(SIZE, score=level_of), cameras, size=SIZE)
    assert [one.is_anomalous for one in kept.verdicts] == [False, True]
    assert shapes == [(30, 20, 3)] * 2
    (region,) = kept.verdicts[1].regions
    assert (region.x_px, region.y_px, region.width_px, region.height_px) == (0, 0, 20, 15)


@pytest.mark.parametrize("region", [Box(0, 0, 81, 48), Box(79, 0, 2, 48), Box(0, 90, 1, 1)])
def test_a_region_outside_of_the_image_is_a_problem_of_a_camera_and_an_error_of_a_file(region: Box) -> None:
    records, policy = Records(), StreamPolicy(region=region)
    go_on = threading.Event()

    def live() -> Iterator[UInt8Array]:
        yield textured(50)
        go_on.wait(LIMIT_S)

    def file() -> Iterator[UInt8Array]:
        yield textured(50)

    cameras = [camera("file", file, live=False, policy=policy), camera("live", live, policy=policy)]
    thread = threading.Thread(
        target=lambda: (wait_until(lambda: ("no_signal", "size") in records.states), go_on.set())
    )
    thread.start()
    found = stream_cameras(FakeSession(SIZE), cameras, size=SIZE, sinks=[records])
    thread.join()
    assert list(found.failed) == ["file"]
    assert found.cameras["live"].withheld == {"size": 1}
    alone = camera("file", file, live=False, policy=policy)
    with pytest.raises(ImageError):
        stream_cameras(FakeSession(SIZE), [alone], size=SIZE)


def test_a_sink_for_all_cameras_is_shown_the_counts_of_each() -> None:
    class Watching(Records):
        def show_counts(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
            self.counts = counts

    class Lossy(Record):
        name = "lossy"

        def wants(self, verdict: Verdict) -> bool:
            return verdict.frame_index == 0

    watching = Watching()
    cameras = [camera(name, lambda: iter([textured(50)]), Lossy(), live=False) for name in ("left", "right")]
    stream_cameras(FakeSession(SIZE), cameras, size=SIZE, sinks=[watching])
    assert [(one.sink, one.written) for one in watching.counts()] == [
        ("Watching", len(watching.records)),
        ("lossy", 1),
        ("lossy", 1),
    ]


@pytest.mark.parametrize("error", [SinkError("full"), StopStream()])
def test_an_error_of_a_sink_or_its_wish_to_end_stops_all_cameras(error: Exception) -> None:
    records, calm = Records(), Record()

    class Failing(Record):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            super().write(frame, verdict, anomaly_map)
            raise error

    def endless() -> Iterator[UInt8Array]:
        while True:
            yield from (textured(level) for level in range(100))

    cameras = [camera("broken", endless, Failing(), live=False), camera("calm", endless, calm, live=False)]

    def run() -> None:
        stream_cameras(FakeSession(SIZE), cameras, size=SIZE, sinks=[records])

    if isinstance(error, StopStream):
        run()
    else:
        with pytest.raises(type(error)) as caught:
            run()
        assert caught.value is error
    stopped = [one["camera"] for one in records.of("state") if one["state"] == "stopped"]
    assert sorted(stopped) == ["broken", "calm"]


class Wide(Source):
    """A file with an image that the view does not fit."""

    def __iter__(self) -> Iterator[Frame]:
        yield frame(textured(50))
        yield frame(textured(60)[:8], 1)


@pytest.mark.parametrize("fault", ["source", "unknown", "image"])
def test_an_error_of_one_camera_ends_this_camera_alone_and_is_told_at_the_end(fault: str) -> None:
    records, own, ended = Records(), Records(), threading.Event()
    errors = {"source": SourceError("burnt down"), "unknown": ValueError("a secret")}

    def broken() -> Iterator[UInt8Array]:
        yield textured(50)
        raise errors[fault]

    def calm() -> Iterator[UInt8Array]:
        yield textured(1)
        wait_until(lambda: ("stopped",) in own.states)
        ended.set()
        yield from (textured(level) for level in range(2, 9))

    odd = camera("odd", broken, own, live=fault == "source")
    if fault == "image":
        odd = Camera(Wide("wide"), [own], 100.0, StreamPolicy(region=Box(0, 0, 80, 48)), name="odd")
    found = stream_cameras(
        FakeSession(SIZE), [odd, camera("calm", calm, live=False)], size=SIZE, sinks=[records]
    )
    assert ended.is_set()
    assert [one["frame_index"] for one in records.of("verdict") if one["camera"] == "calm"] == list(range(8))
    assert found.cameras["odd"].frames_scored == 1
    assert list(found.failed) == ["odd"]
    assert found.has_problem
    (end,) = (one for one in own.of("state") if one["state"] == "stopped")
    assert end["reason"] == found.failed["odd"]
    assert "secret" not in end["reason"]
