"""Sinks that are slow, fail or hang, beside sinks that work."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from edgead.errors import BackendError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import Sink, Summary, open_sinks, stream
from edgead.streaming.deliveries import FRAME_EVENTS, Deliveries
from edgead.streaming.record import Record as JsonRecord
from edgead.streaming.sinks import StatusLine, StopStream
from edgead.streaming.sinks.base import RecordSink, SinkCount
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource, StateRecord, frame, textured
from tests.helpers.trigger_parts import wait_until
from tests.streaming.test_sinks import LOST

LIMIT_S = 30  # a test that would wait forever fails instead


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def images(until: Callable[[], bool], at_most: int | None = None) -> Callable[[], Iterator[UInt8Array]]:
    """Different images, a thousand a second at most, until a condition holds."""

    def script() -> Iterator[UInt8Array]:
        for number in count() if at_most is None else range(at_most):
            if until():
                return
            yield textured(number % 200)
            time.sleep(0.001)

    return script


def run(
    sinks: list[Sink],
    script: Callable[[], Iterator[UInt8Array]],
    live: bool,
    stop: threading.Event | None = None,
) -> Summary:
    """Stream images of which every one is rejected."""
    source = ScriptedSource(script, live)
    return stream(FakeSession(SIZE, score=1.0), source, sinks, size=SIZE, threshold=0.5, stop=stop)


@pytest.fixture
def full_pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe of one page that nobody reads; it is read at the end, so that no thread hangs for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield path
    while any(thread.name.startswith("edgead-jsonl") for thread in threading.enumerate()):
        with suppress(BlockingIOError):
            os.read(reader, 4096)
    os.close(reader)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_pipe_that_nobody_reads_holds_up_neither_other_sinks_nor_the_end(
    full_pipe: Path, tmp_path: Path, live: bool, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.delivery.STUCK_S", 1.0)
    monkeypatch.setattr("edgead.streaming.deliveries.END_S", 1.5)
    stop = threading.Event()
    seen = Record()
    uris = [f"jsonl:{full_pipe}", f"jsonl:{tmp_path}/out.jsonl", f"rejects:{tmp_path}/rejects?keep=3"]

    def enough() -> bool:
        if len(seen.verdicts) > 40 and stopped:
            stop.set()
        return len(seen.verdicts) > 40

    sinks = open_sinks(uris)
    sinks[0].capacity = 20
    summary = run([*sinks, seen], images(enough), live, stop)
    pipe, file, *_ = summary.sinks
    assert pipe.problem is not None
    assert pipe.lost > 0
    assert (file.lost, file.problem) == (0, None)
    lines = lines_of(tmp_path / "out.jsonl")
    assert sum(line["event"] == "verdict" for line in lines) == summary.frames_scored > 40
    assert f"{pipe.lost} lost" in summary.text()


class Slow(Record):
    """A sink that holds its first verdict until it may go on."""

    capacity = 2

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        assert self.may_go_on.wait(LIMIT_S)
        super().write(frame, verdict, anomaly_map)


def test_a_slow_sink_of_a_camera_loses_what_does_not_fit_and_counts_it() -> None:
    slow, quick = Slow(), Record()

    def until() -> bool:
        if len(quick.verdicts) >= 20:
            slow.may_go_on.set()
        return len(quick.verdicts) >= 20

    summary = run([slow, quick], images(until), live=True)
    counts = summary.sinks[0]
    written = [verdict.frame_index for verdict in slow.verdicts]
    given = [verdict.frame_index for verdict in quick.verdicts]
    # Its queue has room for the first one; which ones fit later depends on when its thread takes them.
    assert written[0] == given[0]
    assert written == [index for index in given if index in set(written)]
    assert counts.written == len(slow.verdicts)
    assert counts.lost == summary.frames_scored - counts.written > 0
    assert summary.sinks[1].lost == 0


def test_a_camera_looks_for_room_for_all_events_of_a_frame() -> None:
    go_on = threading.Event()

    class Blocked(Records):
        capacity = FRAME_EVENTS + 2

        def record(self, record: JsonRecord) -> None:
            assert go_on.wait(LIMIT_S)
            super().record(record)

    blocked, full = Blocked(), list[bool]()
    with Deliveries([blocked], waits=True, survives=False) as outputs:
        outputs.missed("test", 1, "taken by the sink")
        wait_until(lambda: not outputs._own[0]._queue)
        for number in range(3):
            full.append(outputs.is_full)
            outputs.missed("test", 1, f"waits as number {number}")
        full.append(outputs.is_full)
        go_on.set()
    # With two or fewer that wait there is room for a threshold, a state, a verdict and the end.
    assert full == [False, False, False, True]
    assert len(blocked.records) == 4


def test_a_slow_sink_of_a_file_gets_every_verdict() -> None:
    slow = Slow()
    threading.Timer(0.2, slow.may_go_on.set).start()
    summary = run([slow], images(lambda: False, 50), live=False)
    assert [verdict.frame_index for verdict in slow.verdicts] == list(range(50))
    assert summary.sinks == (SinkCount("Slow", 50, 0),)


class Fails(RecordSink):
    """A sink that takes every third record at the third try."""

    def __init__(self) -> None:
        self.records: list[JsonRecord] = []
        self.tries = 0

    def record(self, record: JsonRecord) -> None:
        self.tries += 1
        if self.tries % 3:
            raise SinkError("not now")
        self.records.append(record)


def test_a_record_of_a_camera_is_given_again_until_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.delivery.RETRY_S", 0.01)
    sink, seen = Fails(), Record()
    # The first two events are states.
    summary = run([sink, seen], images(lambda: len(sink.records) >= 7), live=True)
    written = [record["frame_index"] for record in sink.records if record["event"] == "verdict"]
    assert len(written) >= 5
    assert written[:5] == [verdict.frame_index for verdict in seen.verdicts[:5]]
    assert summary.sinks[0].written == len(sink.records)


def test_a_reject_whose_image_cannot_be_saved_is_in_the_log_with_the_reason(tmp_path: Path) -> None:
    sinks = open_sinks([f"rejects:{tmp_path}/rejects", f"jsonl:{tmp_path}/out.jsonl"])
    (tmp_path / "rejects").rmdir()
    (tmp_path / "rejects").write_text("in the way")
    seen = Record()
    summary = run([*sinks, seen], images(lambda: len(seen.verdicts) >= 5), live=True)
    lines = lines_of(tmp_path / "out.jsonl")
    scored = [line["frame_index"] for line in lines if line["event"] == "verdict"]
    lost = [line for line in lines if line["event"] == "lost"]
    assert [line["frame_index"] for line in lost] == scored
    assert len(scored) == summary.frames_scored >= 5
    assert all(
        line["sink"] == f"rejects:{tmp_path}/rejects" and "rejects" in str(line["reason"]) for line in lost
    )
    # A verdict is in the log before the loss of its image.
    places = [(line.get("frame_index"), line["event"] == "lost") for line in lines]
    assert all(places.index((index, False)) < places.index((index, True)) for index in scored)
    rejects = summary.sinks[0]
    assert (rejects.written, rejects.lost) == (0, summary.frames_scored)
    assert rejects.problem is not None


def test_a_verdict_is_written_before_its_image(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    found = []

    class Looks(Sink):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            # The last line may be the state at the end.
            found.append(any(line.get("frame_index") == frame.index for line in lines_of(path)))

        def close(self) -> None:
            pass

    run([Looks(), *open_sinks([f"jsonl:{path}"])], images(lambda: False, 30), live=False)
    assert found == [True] * 30


def test_good_frames_do_not_wait_for_a_folder_of_rejects(tmp_path: Path) -> None:
    sinks = open_sinks([f"rejects:{tmp_path}/rejects"])
    source = ScriptedSource(images(lambda: False, 20), live=False)
    session = FakeSession(SIZE, score=lambda image: float(image.min() == 7))
    summary = stream(session, source, sinks, size=SIZE, threshold=0.5)
    assert summary.sinks[0].written == summary.rejected == 1


@pytest.mark.parametrize("live", [True, False])
def test_a_bug_of_a_sink_ends_the_stream(live: bool) -> None:
    bug = RuntimeError("a bug")

    class Broken(Record):
        def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
            raise bug

    other = Record()
    with pytest.raises(RuntimeError) as caught:
        run([Broken(), other], images(lambda: False), live)
    assert caught.value is bug
    assert other.verdicts


def test_sinks_are_closed_even_if_the_stream_does_not_start() -> None:
    class Closed(Record):
        closed = False

        def close(self) -> None:
            self.closed = True

    sink, session = Closed(), FakeSession(SIZE)
    session.close()
    with pytest.raises(BackendError):
        stream(session, ScriptedSource(images(lambda: False), True), [sink], size=SIZE, threshold=0.5)
    assert sink.closed


def test_the_status_names_the_sinks_that_lose_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.status.LOG_EVERY_S", 0.0)
    sinks = open_sinks([f"rejects:{tmp_path}/rejects"])
    (tmp_path / "rejects").rmdir()
    (tmp_path / "rejects").write_text("in the way")
    run([*sinks, StatusLine()], images(lambda: False, 50), live=True)
    shown = capsys.readouterr().err.splitlines()
    assert "LOST" in shown[-1]
    assert "rejects:" in shown[-1]


def test_no_image_is_changed_between_sinks() -> None:
    first, second = Record(), Record()
    run([first, second], images(lambda: False, 10), live=False)
    for one, other in zip(first.maps, second.maps, strict=True):
        np.testing.assert_array_equal(one, other)


def test_events_that_a_sink_ignores_are_not_counted(tmp_path: Path) -> None:
    sinks = open_sinks([f"rejects:{tmp_path}/rejects", f"video:{tmp_path}/out.mkv"])
    record = StateRecord()
    with Deliveries([*sinks, record], waits=True, survives=False) as outputs:
        outputs.withheld(frame(textured(1), 7), "the image is old")
        outputs.state(LOST)
    assert (record.missing, record.changes) == ([(7, "the image is old")], [LOST])
    assert [(count.written, count.lost) for count in outputs.counts()] == [(0, 0), (0, 0), (2, 0)]


def test_a_sink_that_ends_the_stream_between_events_counts_its_events_only() -> None:
    left = threading.Event()

    class Leaves(Record):
        def tick(self) -> None:
            if self.verdicts:
                left.set()
                raise StopStream

    def script() -> Iterator[UInt8Array]:
        yield textured(100)
        left.wait(LIMIT_S)

    summary = run([Leaves()], script, live=True)
    assert summary.sinks[0].written == summary.frames_scored == 1
