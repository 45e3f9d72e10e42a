"""Parts of a trigger: every trigger gets one record, with the verdict of its own frames or the reason."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edgead.types import Frame, UInt8Array
from tests.helpers.part_line import LIMIT_S, Line, level_of
from tests.helpers.stream_parts import ScriptedSource, textured

IMAGE = textured(1)


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
