"""Parts of a trigger: which frames count, what decides, and that every trigger gets one record."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgead.errors import InputError
from edgead.runtime import FakeSession
from edgead.streaming import LineControl, PartRule, StreamPolicy, Summary, stream
from edgead.streaming.freshness import Problem
from edgead.streaming.part_judge import decided_part
from edgead.streaming.parts import MOST_PENDING, Part, PartQueue, Scored
from edgead.streaming.policy import MOST_PART_FRAMES
from edgead.types import Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, Record, Records, ScriptedSource, textured

LIMIT_S = 20
THRESHOLD = 100.0
MAX_AGE_NS = 10**9
IMAGE = textured(1)
MAP = np.zeros((32, 64), np.float32)


def level_of(image: UInt8Array) -> float:
    """The level of a `textured` image, a multiple of 10, after resizing, which averages its speckles in."""
    return float(image.min() // 10 * 10)


def scored(index: int, score: float, captured_at_ns: int = 0) -> Scored:
    frame = Frame(image=IMAGE, index=index, captured_at_ns=captured_at_ns, source="test")
    return Scored(frame, Verdict(index, score, THRESHOLD, score > THRESHOLD, 1.0, ()), MAP)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4])
def test_a_part_is_rejected_if_enough_of_its_frames_are(n_frames: int) -> None:
    for rejects in range(1, n_frames + 1):
        rule = PartRule(frames=n_frames, rejects=rejects)
        for scores in itertools.product((10.0, 90.0, 110.0, 190.0), repeat=n_frames):
            part = Part(7, "A1", 0, 0, scored=[scored(index, score) for index, score in enumerate(scores)])
            deciding, verdict, _ = decided_part(part, rule, 5_000_000)
            assert verdict.is_anomalous == (sum(score > THRESHOLD for score in scores) >= rejects)
            assert verdict.anomaly_score == scores[deciding.index] == scores[verdict.frame_index]
            # As many frames as needed score at least as high, and fewer score higher.
            assert sum(score >= verdict.anomaly_score for score in scores) >= rejects
            assert sum(score > verdict.anomaly_score for score in scores) < rejects
            assert verdict.latency_ms == 5.0
            assert verdict.trigger is not None
            assert (verdict.trigger.number, verdict.trigger.part_id) == (7, "A1")
            assert [one.anomaly_score for one in verdict.trigger.frames] == list(scores)


def settled(queue: PartQueue, events: list[tuple[int, str]]) -> list[tuple[int, list[int] | None]]:
    """Run triggers and frames through a queue; each part in the order of its end, with its frames or None."""
    out: list[tuple[int, list[int] | None]] = []
    n_frames = 0
    for now_ns, kind in events:
        if kind == "trigger":
            queue.add(at_ns=now_ns)
            continue
        one = scored(n_frames, 1.0, now_ns)
        n_frames += 1
        queue.claim(one.frame)
        out += [(part.number, None) for part in queue.take_overdue(now_ns, MAX_AGE_NS)]
        part = queue.part_of(one.frame)
        if part is not None and queue.score(part, one):
            *earlier, last = queue.take_up_to(part)
            out += [(part.number, None) for part in earlier]
            out.append((last.number, [each.frame.index for each in last.scored]))
    return out + [(part.number, None) for part in queue.take_all()]


@pytest.mark.parametrize("seed", range(40))
def test_the_first_frames_after_a_trigger_count_and_each_for_one_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    delay_ns, n_frames = int(rng.integers(0, 4)) * 30_000_000, int(rng.integers(1, 4))
    times = np.sort(rng.choice(3_000_000_000, 120, replace=False))
    is_trigger = rng.random(120) < rng.choice([0.1, 0.3, 0.5])
    triggers = [int(t) for t in times[is_trigger]]
    frames = [int(t) for t in times[~is_trigger]]
    expected: list[tuple[int, list[int] | None]] = []
    for number, at_ns in enumerate(triggers, 1):
        begin_ns = at_ns + delay_ns
        end_ns = triggers[number] + delay_ns if number < len(triggers) else 2**63
        own = [i for i, t in enumerate(frames) if begin_ns <= t < end_ns and t <= begin_ns + MAX_AGE_NS]
        expected.append((number, own[:n_frames] if len(own) >= n_frames else None))
    queue = PartQueue(PartRule(delay_ns / 1e9, n_frames))
    events = [(int(t), "trigger" if kind else "frame") for t, kind in zip(times, is_trigger, strict=True)]
    assert settled(queue, events) == expected


def test_a_queue_of_parts_has_a_limit_and_an_end() -> None:
    queue = PartQueue(PartRule())
    assert [queue.add() for _ in range(MOST_PENDING)] == list(range(1, MOST_PENDING + 1))
    assert (queue.add(), queue.add(), queue.take_missed(), queue.take_missed()) == (None, None, 2, 0)
    assert len(queue.take_all(close=True)) == MOST_PENDING
    assert queue.add() is None
    assert (queue.take_all(), queue.triggered) == ([], MOST_PENDING + 2)


def test_frames_in_memory_have_a_limit() -> None:
    queue = PartQueue(PartRule())
    claimed = 0
    for index in range(3 * MOST_PART_FRAMES):
        queue.add(at_ns=index)
        claimed += queue.claim(scored(index, 1.0, index).frame)
    assert claimed == MOST_PART_FRAMES


@pytest.mark.parametrize(
    "wrong",
    [{"delay_s": -1.0}, {"delay_s": 61.0}, {"frames": 0}, {"frames": 33}, {"rejects": 0}, {"rejects": 2}],
)
def test_a_rule_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PartRule(**wrong)


def test_more_frames_of_a_part_take_longer() -> None:
    policy = StreamPolicy()
    assert [policy.max_age_of(2.0, frames) for frames in (1, 3)] == [1.5, 2.5]
    assert policy.max_age_of(30.0, 3) == 1.0
    assert StreamPolicy(max_age_s=0.2).max_age_of(2.0, 3) == 0.2


class Line:
    """A stream with a trigger, of which a test is the camera and the line."""

    def __init__(self, *, max_age_s: float = LIMIT_S, **rule: Any) -> None:
        self.control = LineControl(PartRule(**rule))
        self.out, self.images = Records(), Record()
        self._policy = StreamPolicy(part="washer", max_age_s=max_age_s, withhold_still="never")
        self.camera: ScriptedSource | None = None
        self.score: Callable[[UInt8Array], float] = level_of

    def trigger(self, part_id: str | None = None) -> None:
        assert self.control.parts is not None
        self.control.parts.add(part_id)

    def run(self, script: Callable[[], Iterator[UInt8Array]]) -> Summary:
        session = FakeSession(SIZE, score=lambda image: self.score(image))
        source, sinks = self.camera or ScriptedSource(script, live=True), [self.out, self.images]
        summary = stream(
            session,
            source,
            sinks,
            size=SIZE,
            threshold=THRESHOLD,
            policy=self._policy,
            line=self.control,
        )
        parts = summary.parts
        assert parts is not None
        assert parts.triggered == parts.judged + sum(parts.withheld.values()) + parts.missed
        assert summary.frames_seen == (
            summary.frames_scored
            + summary.frames_dropped
            + summary.frames_withheld
            + summary.frames_broken
            + summary.frames_idle
        )
        return summary

    def settled(self) -> list[tuple[int, Any]]:
        """Number of each part in the order of the records, with its score, or with the cause of the missing verdict."""
        records = self.out.of("verdict", "withheld")
        return [
            (one["trigger"]["number"], one["anomaly_score"] if one["event"] == "verdict" else one["cause"])
            for one in records
        ]

    def wait(self, n_records: int) -> None:
        end_s = time.monotonic() + LIMIT_S
        while len(self.out.of("verdict", "withheld")) < n_records:
            assert time.monotonic() < end_s, f"{n_records} records do not come"
            time.sleep(0.002)


def test_each_part_gets_the_verdict_of_the_first_frame_after_its_trigger() -> None:
    line = Line()

    def script() -> Iterator[UInt8Array]:
        for number, level in enumerate((50, 150, 60), 1):
            yield textured(200)  # before the trigger
            line.trigger(f"S{number}")
            yield textured(level)
            yield textured(210)  # after the part has its frame
            line.wait(number)

    summary = line.run(script)
    assert line.settled() == [(1, 50.0), (2, 150.0), (3, 60.0)]
    records = line.out.of("verdict")
    assert [one["is_anomalous"] for one in records] == [False, True, False]
    assert [one["trigger"]["part_id"] for one in records] == ["S1", "S2", "S3"]
    assert {one["part"] for one in records} == {"washer"}
    assert [one["trigger"]["frames"][0]["frame_index"] for one in records] == [
        one["frame_index"] for one in records
    ]
    # The image of the deciding frame goes to the sinks of images.
    assert [verdict.frame_index for verdict in line.images.verdicts] == [
        one["frame_index"] for one in records
    ]
    assert summary.frames_scored == 3
    assert summary.parts is not None
    assert (summary.parts.judged, summary.parts.rejected) == (3, 1)
    assert "3 triggered" in summary.text()


def test_the_frames_of_a_part_are_kept_while_the_model_works() -> None:
    line = Line(frames=3, rejects=2)
    scoring, given = threading.Event(), threading.Event()

    def score(image: UInt8Array) -> float:
        if level_of(image) == 40:
            scoring.set()
            assert given.wait(LIMIT_S)
        return level_of(image)

    def script() -> Iterator[UInt8Array]:
        line.trigger()
        yield textured(40)
        assert scoring.wait(LIMIT_S)
        yield from (textured(level) for level in (150, 120, 200, 210, 220))
        given.set()
        line.wait(1)

    line.score = score
    summary = line.run(script)
    (record,) = line.out.of("verdict")
    assert [one["anomaly_score"] for one in record["trigger"]["frames"]] == [40, 150, 120]
    assert (record["anomaly_score"], record["is_anomalous"], record["frame_index"]) == (120, True, 2)
    # Of the frames that no part needs the newest waits.
    assert summary.frames_dropped == 2
    assert summary.latency_p50_ms is not None


def test_the_latency_begins_with_the_trigger_and_the_delay_moves_the_frames() -> None:
    line = Line(delay_s=0.05)
    began_ns = 0

    def script() -> Iterator[UInt8Array]:
        nonlocal began_ns
        began_ns = time.monotonic_ns()
        line.trigger()
        yield textured(200)
        end_s = time.monotonic() + LIMIT_S
        while not line.out.of("verdict"):
            assert time.monotonic() < end_s
            time.sleep(0.005)
            late = time.monotonic_ns() - began_ns > 200_000_000
            yield textured(50 + np.random.default_rng(time.monotonic_ns()).integers(1, 20) if late else 200)

    line.run(script)
    (record,) = line.out.of("verdict")
    assert record["latency_ms"] >= 50
    assert record["age_ms"] <= record["latency_ms"] - 50


@pytest.mark.parametrize("n_frames", [1, 3])
def test_each_of_many_triggers_gets_its_own_first_frames(n_frames: int) -> None:
    """Triggers, frames and the model in their own threads, each at its own irregular pace."""
    line, rng = Line(frames=n_frames), np.random.default_rng(n_frames)
    triggered, captured, ended = list[int](), list[int](), threading.Event()

    def trigger() -> None:
        assert line.control.parts is not None
        while not ended.wait(float(rng.exponential(0.015))):
            now_ns = time.monotonic_ns()
            triggered.append(now_ns)
            line.control.parts.add(at_ns=now_ns)

    class Camera(ScriptedSource):
        def __iter__(self) -> Iterator[Frame]:
            for one in super().__iter__():
                captured.append(one.captured_at_ns)
                yield one

    def script() -> Iterator[UInt8Array]:
        thread = threading.Thread(target=trigger)
        thread.start()
        for number in range(200):
            time.sleep(0.002)
            yield textured(50 + 10 * (number % 10))
        ended.set()
        thread.join()

    def score(image: UInt8Array) -> float:
        time.sleep(float(line_rng.exponential(0.004)))
        return level_of(image)

    line_rng = np.random.default_rng(9)
    line.score = score
    line.camera = Camera(script, live=True)
    summary = line.run(script)
    assert [number for number, _ in line.settled()] == list(range(1, len(triggered) + 1))
    assert summary.parts is not None
    assert summary.parts.judged > 3
    for record in line.out.of("verdict"):
        number = record["trigger"]["number"]
        own = [index for index, at_ns in enumerate(captured) if at_ns >= triggered[number - 1]][:n_frames]
        assert [one["frame_index"] for one in record["trigger"]["frames"]] == own
        # The next part had not come yet.
        assert number == len(triggered) or captured[own[-1]] < triggered[number]


def test_a_trigger_that_comes_before_the_frames_of_the_one_before_withholds_that_one() -> None:
    line = Line(frames=2)

    def script() -> Iterator[UInt8Array]:
        for _ in range(3):
            line.trigger()  # two of them without a frame
        yield textured(50)
        line.wait(2)
        line.trigger()
        yield textured(60)
        yield textured(70)
        line.wait(4)
        line.trigger()

    summary = line.run(script)
    assert line.settled() == [
        (1, "next_part"), (2, "next_part"), (3, "next_part"), (4, 70.0), (5, "ended"),
    ]  # fmt: skip
    assert summary.parts is not None
    assert summary.parts.withheld == {"next_part": 3, "ended": 1}
    # A part that is withheld shows the frames that it had.
    assert [len(one["trigger"]["frames"]) for one in line.out.of("withheld")] == [0, 0, 1, 0]


def test_a_part_without_a_frame_in_time_is_withheld() -> None:
    line = Line(max_age_s=0.05, frames=2)

    def script() -> Iterator[UInt8Array]:
        line.trigger()
        line.wait(1)
        line.trigger()
        yield textured(50)
        line.wait(2)
        # Too late for both.
        yield textured(60)
        yield textured(70)

    line.run(script)
    assert line.settled() == [(1, "no_image"), (2, "late")]


def test_a_verdict_that_comes_too_late_is_withheld() -> None:
    line = Line(max_age_s=0.05)

    def score(image: UInt8Array) -> float:
        if image.min():
            time.sleep(0.1)
        return 1.0

    def script() -> Iterator[UInt8Array]:
        line.trigger()
        yield textured(50)
        line.wait(1)

    line.score = score
    line.run(script)
    assert line.settled() == [(1, "late")]
    assert line.images.verdicts == []


def test_a_part_whose_frames_are_new_enough_may_be_too_late_itself() -> None:
    line, scored_once = Line(max_age_s=0.3, frames=2), threading.Event()

    def score(image: UInt8Array) -> float:
        if image.min():
            time.sleep(0.2)
            scored_once.set()
        return 1.0

    def script() -> Iterator[UInt8Array]:
        line.trigger()
        yield textured(50)
        assert scored_once.wait(LIMIT_S)
        yield textured(60)
        line.wait(1)

    line.score = score
    line.run(script)
    assert line.settled() == [(1, "late")]


def test_a_frame_with_a_problem_does_not_count_and_names_the_reason() -> None:
    line = Line()

    def script() -> Iterator[UInt8Array]:
        yield textured(50)
        line.trigger()
        yield np.zeros_like(IMAGE)
        yield textured(60)
        line.wait(1)
        line.trigger()
        yield np.zeros_like(IMAGE)
        line.trigger()
        yield textured(70)
        line.wait(3)

    summary = line.run(script)
    assert line.settled() == [(1, 60.0), (2, "one_colour"), (3, 70.0)]
    assert summary.withheld == {"one_colour": 2}


def test_a_score_that_is_not_finite_withholds_the_part() -> None:
    line = Line()

    def script() -> Iterator[UInt8Array]:
        line.trigger()
        yield textured(50)
        line.trigger()
        yield textured(60)
        line.wait(2)

    line.score = lambda image: float("nan") if level_of(image) == 50 else level_of(image)
    line.run(script)
    assert line.settled() == [(1, "not_finite"), (2, 60.0)]


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
