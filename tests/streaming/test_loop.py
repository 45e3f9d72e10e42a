import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgead.errors import BackendError, ImageError, InputError, SinkError, SourceError
from edgead.imaging.view import View, read_roi
from edgead.runtime import FakeSession
from edgead.streaming import LineControl, StreamPolicy, stream
from edgead.streaming.sinks import StopStream
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource, StateRecord, textured
from tests.helpers.trigger_parts import wait_until

LIMIT_S = 20  # a test that would wait forever fails instead
NO_SIGNAL_AFTER_S = 0.5


def level_of(image: UInt8Array) -> int:
    """The `level` of a `textured` image after resizing, and a little more, because its speckles are averaged in."""
    return int(image.min())


def test_every_image_of_a_file_gets_its_verdict_in_order() -> None:
    levels = [int(level) for level in np.random.default_rng(1).permutation(200)]
    record = Record()
    with FakeSession(SIZE, score=level_of) as session:
        summary = stream(
            session,
            ScriptedSource(lambda: (textured(level) for level in levels), live=False),
            [record],
            size=SIZE,
            threshold=150.5,
        )
    assert [verdict.frame_index for verdict in record.verdicts] == list(range(200))
    assert [verdict.anomaly_score for verdict in record.verdicts] == pytest.approx(levels, abs=8)
    assert [v.is_anomalous for v in record.verdicts] == [v.anomaly_score > 150.5 for v in record.verdicts]
    assert {map_.shape for map_ in record.maps} == {(SIZE.height_px, SIZE.width_px)}
    assert (summary.frames_seen, summary.frames_scored, summary.frames_dropped, summary.frames_withheld) == (
        200, 200, 0, 0,
    )  # fmt: skip
    assert summary.rejected == sum(v.is_anomalous for v in record.verdicts) > 0
    latencies = [verdict.latency_ms for verdict in record.verdicts]
    exact = np.percentile(latencies, [50, 95, 99], method="inverted_cdf")
    shown = [summary.latency_p50_ms, summary.latency_p95_ms, summary.latency_p99_ms]
    assert shown == pytest.approx(exact, rel=0.01)


def test_a_file_may_hold_the_same_or_a_black_image_again_and_again() -> None:
    record = StateRecord()
    images = [textured(5)] * 3 + [np.zeros((48, 80, 3), np.uint8)] * 3
    summary = stream(
        FakeSession(SIZE),
        ScriptedSource(lambda: iter(images), live=False),
        [record],
        size=SIZE,
        threshold=1.0,
    )
    assert len(record.verdicts) == summary.frames_scored == 6
    assert record.states == ["starting", "running", "stopped"]


def test_a_slow_decision_on_a_camera_scores_the_newest_frame_next() -> None:
    deciding, given = threading.Event(), threading.Event()

    def script() -> Iterator[UInt8Array]:
        yield textured(61)
        assert deciding.wait(LIMIT_S)
        for level in range(62, 160):
            yield textured(level)
        given.set()

    def score(image: UInt8Array) -> float:
        if level_of(image) == 0:  # the warm-up before the stream
            return 0.0
        deciding.set()
        assert given.wait(LIMIT_S)
        return float(level_of(image))

    record = Record()
    source = ScriptedSource(script, live=True)
    summary = stream(FakeSession(SIZE, score=score), source, [record], size=SIZE, threshold=1000.0)
    assert [verdict.frame_index for verdict in record.verdicts] == [0, 98]
    assert (summary.frames_seen, summary.frames_scored, summary.frames_dropped) == (99, 2, 97)


def wait_for(condition: Callable[[], bool]) -> Iterator[None]:
    """Yield until the stream, in the other thread, meets the condition."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "the stream did not meet the condition"
        yield
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (textured(40), "the image does not change"),
        (np.zeros((48, 80, 3), np.uint8), "the image is of one colour"),
        (None, "no image comes"),
    ],
)
def test_no_verdict_without_a_new_image(
    bad: UInt8Array | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", NO_SIGNAL_AFTER_S)
    record = StateRecord()

    def script() -> Iterator[UInt8Array]:
        """A camera that works, gives `bad` or nothing until its signal is reported lost, and works again."""
        yield textured(40)
        for _ in wait_for(lambda: len(record.verdicts) == 1):
            pass
        for _ in wait_for(lambda: bool(record.losses)):
            if bad is not None:
                yield bad
        yield textured(120)
        for _ in wait_for(lambda: len(record.verdicts) == 2):
            pass

    session, source = FakeSession(SIZE, score=level_of), ScriptedSource(script, live=True)
    summary = stream(session, source, [record], size=SIZE, threshold=1000.0)
    assert [verdict.anomaly_score for verdict in record.verdicts] == pytest.approx([40, 120], abs=8)
    assert record.states == ["starting", "running", "no_signal", "running", "stopped"]
    assert [loss.reason for loss in record.losses] == [reason]
    assert record.losses[0].silent_s >= NO_SIGNAL_AFTER_S
    assert summary.frames_scored == 2
    assert summary.signal_losses == 1
    assert (summary.frames_withheld > 0) == (bad is not None)
    assert summary.frames_seen == 2 + summary.frames_dropped + summary.frames_withheld
    assert record.ticks > 0


def test_an_error_of_the_source_surfaces_after_the_verdicts_before_it() -> None:
    burnt = SourceError("the camera burnt down")

    def script() -> Iterator[UInt8Array]:
        yield from (textured(level) for level in range(5))
        raise burnt

    record = Record()
    with pytest.raises(SourceError) as caught:
        stream(FakeSession(SIZE), ScriptedSource(script, live=False), [record], size=SIZE, threshold=1.0)
    assert caught.value is burnt
    assert len(record.verdicts) == 5


class Failing(Record):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        super().write(frame, verdict, anomaly_map)
        if len(self.verdicts) == 3:
            raise self._error


def endless(live: bool = False) -> ScriptedSource:
    def script() -> Iterator[UInt8Array]:
        while True:
            yield from (textured(level) for level in range(100))

    return ScriptedSource(script, live)


def test_an_error_of_a_sink_surfaces_and_stops_the_source() -> None:
    source, full = endless(), SinkError("disk full")
    with pytest.raises(SinkError) as caught:
        stream(FakeSession(SIZE), source, [Failing(full)], size=SIZE, threshold=1.0)
    assert caught.value is full
    assert source.stopped.is_set()


def test_a_sink_may_end_the_stream() -> None:
    sink = Failing(StopStream())
    summary = stream(FakeSession(SIZE), endless(), [sink], size=SIZE, threshold=1.0)
    assert len(sink.verdicts) == 3
    assert summary.frames_scored >= 3


def test_an_error_of_the_session_surfaces() -> None:
    session = FakeSession(SIZE)
    session.close()
    with pytest.raises(BackendError):
        stream(session, endless(), [], size=SIZE, threshold=1.0)


def test_broken_images_of_a_source_are_counted() -> None:
    source = ScriptedSource(lambda: iter([textured(1), textured(2)]), live=False)
    source.broken = 3
    summary = stream(FakeSession(SIZE), source, [], size=SIZE, threshold=1.0)
    assert (summary.frames_seen, summary.frames_scored, summary.frames_broken) == (5, 2, 3)
    assert "3 broken" in summary.text()


@pytest.mark.parametrize(("live", "endless"), [(True, False), (False, True), (False, False)])
def test_an_image_that_the_view_does_not_fit_ends_no_stream_of_a_camera(
    live: bool, endless: bool, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()

    def script() -> Iterator[UInt8Array]:
        for number, image in enumerate([textured(101), textured(102)[:20, :20], textured(103)]):
            yield image
            # A newer image of a camera must not replace one that is not taken yet.
            if live and number == 0:
                wait_until(lambda: len(record.verdicts) == 1)
            elif live and number == 1:
                wait_until(lambda: any(one.levelname == "WARNING" for one in caplog.records))

    source = ScriptedSource(script, live=live)
    source.endless = endless
    policy = StreamPolicy(view=View(roi=read_roi("0,0,40,20")))
    if live or endless:
        summary = stream(FakeSession(SIZE), source, [record], size=SIZE, threshold=1.0, policy=policy)
        assert (summary.frames_scored, summary.withheld) == (2, {"size": 1})
    else:
        with pytest.raises(ImageError) as caught:
            stream(FakeSession(SIZE), source, [record], size=SIZE, threshold=1.0, policy=policy)
        assert "(test)" in caught.value.what
        assert len(record.verdicts) == 1


def test_a_slow_camera_is_not_lost_between_two_images() -> None:
    record = StateRecord()

    def script() -> Iterator[UInt8Array]:
        yield textured(61)
        time.sleep(3 * NO_SIGNAL_AFTER_S)
        yield textured(62)

    source = ScriptedSource(script, live=True)
    source.fps = 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", NO_SIGNAL_AFTER_S)
        stream(FakeSession(SIZE), source, [record], size=SIZE, threshold=1.0)
    assert record.losses == []


def test_max_frames_counts_scored_frames() -> None:
    record = Record()
    summary = stream(
        FakeSession(SIZE), endless(), [record], size=SIZE, threshold=1.0, policy=StreamPolicy(max_frames=7)
    )
    assert summary.frames_scored == len(record.verdicts) == 7


def test_max_frames_below_one_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        StreamPolicy(max_frames=0)
    assert "0" in caught.value.what


def test_a_source_without_a_frame_gives_a_summary() -> None:
    source = ScriptedSource(lambda: iter(()), live=False)
    summary = stream(FakeSession(SIZE), source, [], size=SIZE, threshold=1.0)
    assert (summary.frames_seen, summary.latency_p50_ms) == (0, None)
    assert "latency" not in summary.text()


def test_the_summary_has_the_counts() -> None:
    text = stream(
        FakeSession(SIZE), endless(), [], size=SIZE, threshold=0.0, policy=StreamPolicy(max_frames=3)
    ).text()
    assert "3 scored, 0 dropped, 0 withheld" in text
    assert "rejected   3" in text
    assert all(word in text for word in ("p50", "p95", "p99"))


def test_a_new_threshold_decides_from_the_next_frame_on_and_every_change_is_reported() -> None:
    line, records = LineControl(), Records()

    def script() -> Iterator[UInt8Array]:
        yield textured(60)
        wait_until(lambda: records.of("verdict"))
        line.set_threshold(70.0, "Ali")
        line.set_threshold(50.0, "Kim")
        yield textured(60)
        wait_until(lambda: len(records.of("verdict")) == 2)
        # The bundle has this one already, although no frame follows.
        line.pause()
        wait_until(lambda: records.states[-1][0] == "paused")
        line.set_threshold(90.0, "Kim")

    stream(
        FakeSession(SIZE, score=level_of),
        ScriptedSource(script, live=False),
        [records],
        size=SIZE,
        threshold=100.0,
        policy=StreamPolicy("washer"),
        line=line,
    )
    found = [
        (record["event"], record["threshold"], record.get("previous"), record.get("set_by"), record["part"])
        for record in records.of("verdict", "threshold")
    ]
    assert found == [
        ("verdict", 100.0, None, None, "washer"),
        ("threshold", 70.0, 100.0, "Ali", "washer"),
        ("threshold", 50.0, 70.0, "Kim", "washer"),
        ("verdict", 50.0, None, None, "washer"),
        ("threshold", 90.0, 50.0, "Kim", "washer"),
    ]
    assert [record["is_anomalous"] for record in records.of("verdict")] == [False, True]
