"""Parts and frames without a verdict of their own: pauses, triggers that come too fast or late, or do not work."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edgead.errors import InputError
from edgead.runtime import FakeSession
from edgead.streaming import LineControl, PartRule, stream
from edgead.streaming.freshness import Problem
from edgead.streaming.line import NewThreshold
from edgead.streaming.parts import MOST_PENDING
from edgead.types import UInt8Array
from tests.helpers.part_line import LIMIT_S, THRESHOLD, Line, level_of
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource, textured

IMAGE = textured(1)


def test_a_paused_stream_withholds_its_parts_and_shows_it() -> None:
    line = Line()

    def wait_for_state(state: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not line.out.states or line.out.states[-1][0] != state:
            assert time.monotonic() < end_s
            time.sleep(0.002)

    def script() -> Iterator[UInt8Array]:
        line.control.pause()
        wait_for_state("paused")
        line.trigger()
        yield textured(50)
        line.wait(1)
        line.control.resume()
        wait_for_state("running")
        line.trigger()
        yield textured(70)
        line.wait(2)

    summary = line.run(script)
    assert line.settled() == [(1, "paused"), (2, 70.0)]
    assert line.out.states == [("starting",), ("paused", "paused"), ("running",), ("stopped",)]
    assert summary.signal_losses == 0


def test_a_paused_camera_without_a_trigger_gives_no_verdicts() -> None:
    control, out = LineControl(), Records()

    def wait(condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s
            time.sleep(0.002)

    def script() -> Iterator[UInt8Array]:
        yield textured(50)
        wait(lambda: len(out.of("verdict")) == 1)
        control.pause()
        wait(lambda: out.states[-1] == ("paused", "paused"))
        yield textured(60)
        time.sleep(0.05)
        control.resume()
        wait(lambda: out.states[-1] == ("running",))
        yield textured(70)
        wait(lambda: len(out.of("verdict")) == 2)

    source = ScriptedSource(script, live=True)
    session = FakeSession(SIZE, score=level_of)
    summary = stream(session, source, [out], size=SIZE, threshold=THRESHOLD, line=control)
    assert [one["anomaly_score"] for one in out.of("verdict")] == [50.0, 70.0]
    assert summary.withheld == {"paused": 1}


def test_a_file_waits_while_it_is_paused() -> None:
    control, out = LineControl(), Records()
    control.pause()
    while_paused: list[int] = []

    def resume() -> None:
        while_paused.append(len(out.of("verdict")))
        control.resume()

    timer = threading.Timer(0.15, resume)
    timer.start()
    source = ScriptedSource(lambda: (textured(level) for level in range(5)), live=False)
    stream(FakeSession(SIZE), source, [out], size=SIZE, threshold=THRESHOLD, line=control)
    timer.join()
    assert while_paused == [0]
    assert [one["frame_index"] for one in out.of("verdict")] == list(range(5))
    assert out.of("withheld") == []


def test_no_frame_of_a_file_is_lost_to_a_pause_that_comes_with_it() -> None:
    class Sudden(LineControl):
        """A pause that comes just after the loop has looked for one."""

        def take_threshold(self) -> NewThreshold | None:
            threading.Timer(0.05, self.resume).start()
            self.pause()
            return None

    control, out = Sudden(), Records()
    source = ScriptedSource(lambda: (textured(level) for level in range(3)), live=False)
    summary = stream(FakeSession(SIZE), source, [out], size=SIZE, threshold=THRESHOLD, line=control)
    assert [one["frame_index"] for one in out.of("verdict")] == [0, 1, 2]
    assert summary.withheld == {}


def test_triggers_that_come_too_fast_are_counted_as_missed() -> None:
    line = Line()

    def script() -> Iterator[UInt8Array]:
        scoring.wait(LIMIT_S)
        yield textured(50)
        line.wait(MOST_PENDING)

    scoring = threading.Event()

    def score(image: UInt8Array) -> float:
        if not scoring.is_set():  # the inference before the capture
            for _ in range(MOST_PENDING + 25):
                line.trigger()
            scoring.set()
        return level_of(image)

    line.score = score
    summary = line.run(script)
    assert summary.parts is not None
    assert (summary.parts.triggered, summary.parts.missed) == (MOST_PENDING + 25, 25)
    assert line.settled() == [
        *((number, "next_part") for number in range(1, MOST_PENDING)),
        (MOST_PENDING, 50.0),
    ]
    assert sum(one["triggers"] for one in line.out.of("missed")) == 25


def test_a_trigger_that_does_not_work_is_a_lost_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.5)
    line = Line()

    lost = ("no_signal", "no_trigger")

    def script() -> Iterator[UInt8Array]:
        line.control.trouble = "the broker is away"
        level = 0
        while lost not in line.out.states or line.out.states[-1] == lost:
            level = 50 + (level + 1) % 40
            yield textured(level)
            time.sleep(0.01)
            if lost in line.out.states:
                line.control.trouble = None

    line.run(script)
    assert line.out.states == [("starting",), ("running",), lost, ("running",), ("stopped",)]


def test_a_part_whose_trigger_came_late_gets_no_verdict() -> None:
    line = Line()

    def script() -> Iterator[UInt8Array]:
        assert line.control.parts is not None
        line.control.parts.add("old", problem=Problem("late", "it came late"))
        yield textured(50)
        line.wait(1)
        line.trigger("new")
        yield textured(60)
        line.wait(2)

    line.run(script)
    assert line.settled() == [(1, "late"), (2, 60.0)]


def test_a_trigger_needs_a_camera() -> None:
    closed = threading.Event()

    class Closed(Record):
        def close(self) -> None:
            closed.set()

    source, line = ScriptedSource(lambda: iter([IMAGE]), live=False), LineControl(PartRule())
    with pytest.raises(InputError):
        stream(FakeSession(SIZE), source, [Closed()], size=SIZE, threshold=1.0, line=line)
    assert closed.is_set()
