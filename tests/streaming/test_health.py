"""The states of a stream, with times made by hand."""

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from edgead.imaging.preprocess import ModelSize
from edgead.imaging.sharpness import sharpness_limit
from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, stream
from edgead.streaming.drift import DriftWatch
from edgead.streaming.freshness import Problem
from edgead.streaming.health import NO_NEW_FILE_AFTER_S, NO_SIGNAL_AFTER_S, REPEAT_S, Health
from edgead.streaming.sinks import SinkCount
from edgead.streaming.state import StateChange
from edgead.streaming.watchdogs import JUMP_FOR_S, SINK_FAILS_S, WINDOW_S
from edgead.types import Frame, UInt8Array, Verdict
from tests.helpers.stream_parts import SIZE, ScriptedSource, StateRecord, textured

IMAGE = textured(90)
GOOD = Verdict(0, 0.5, 1.0, False, 5.0, ())
REJECT = Verdict(0, 2.0, 1.0, True, 5.0, ())
DARK = Problem("dark", "the image is dark", ": 7 of 255")
LATE = Problem("late", "the image is older than 1 s", ": 1.2 s")


class Line:
    """A stream without threads: a source, its sinks, its clocks, and the changes of its state."""

    def __init__(
        self,
        live: bool = True,
        endless: bool = False,
        fps: float | None = None,
        by_signal: bool = False,
        drift: DriftWatch | None = None,
    ) -> None:
        self.source = ScriptedSource(lambda: iter(()), live)
        self.source.endless, self.source.fps, self.source.by_signal = endless, fps, by_signal
        self.sinks = [SinkCount("jsonl:x", 0, 0)]
        self.health = Health(self.source, lambda: self.sinks, None, 0.0, drift=drift)
        self.now_s, self.wall_s, self.index = 0.0, 1e9, 0
        self.changes: list[StateChange] = []

    def step(self, came: Problem | bool | None, step_s: float = 0.1) -> None:
        """Let time pass; then a good frame comes (True), one with a problem, or none (None)."""
        self.now_s += step_s
        self.wall_s += step_s
        frame = None
        if came is not None:
            frame = Frame(IMAGE, self.index, round(self.now_s * 1e9), "test")
            self.index += 1
        problem = came if isinstance(came, Problem) else None
        change = self.health.update(frame, problem, 0, self.now_s, self.wall_s)
        if problem is not None:
            self.health.withheld(problem.cause)
        if change is not None:
            self.changes.append(change)

    def run(self, came: Problem | bool | None, for_s: float) -> None:
        for _ in range(round(for_s * 10)):
            self.step(came)

    def found(self) -> list[tuple[str, tuple[str, ...]]]:
        """The changes since the last call: states with causes."""
        found = [(change.state, change.causes) for change in self.changes]
        self.changes.clear()
        return found


def test_a_camera_starts_runs_loses_its_signal_and_returns() -> None:
    line = Line()
    assert line.health.change == StateChange("starting", "starting")
    line.run(None, 1.0)
    assert line.found() == []
    line.run(True, 1.0)
    assert line.changes == [StateChange("running", "starting", (), "", pytest.approx(1.1, abs=0.01))]
    line.found()
    line.run(None, NO_SIGNAL_AFTER_S + 2)
    assert line.changes == [
        StateChange(
            "no_signal", "running", ("no_image",), "no image comes", pytest.approx(NO_SIGNAL_AFTER_S, abs=0.2)
        )
    ]
    line.found()
    line.step(True)
    assert line.changes == [
        StateChange("running", "no_signal", (), "", pytest.approx(NO_SIGNAL_AFTER_S + 2.1, abs=0.01))
    ]
    end = line.health.stop("the source has ended", line.now_s + 1)
    assert end == StateChange("stopped", "running", (), "the source has ended")
    times_s = line.health.times_s
    assert list(times_s) == ["starting", "running", "no_signal"]
    assert sum(times_s.values()) == pytest.approx(line.now_s + 1)
    assert times_s["no_signal"] == pytest.approx(2.1, abs=0.2)
    assert line.health.signal_losses == 1


def test_a_camera_that_never_gives_an_image_has_no_signal() -> None:
    line = Line()
    line.run(None, NO_SIGNAL_AFTER_S + 1)
    assert line.found() == [("no_signal", ("no_image",))]


def test_a_slow_camera_and_a_watched_folder_have_more_time() -> None:
    slow = Line(fps=0.2)
    slow.step(True)
    slow.run(None, 9.5)
    assert slow.found() == [("running", ())]
    folder = Line(live=False, endless=True)
    folder.step(True)
    folder.run(None, NO_NEW_FILE_AFTER_S - 1)
    assert folder.found() == [("running", ())]
    folder.source.trouble = "the share is away"
    folder.step(None)
    assert folder.found() == [("no_signal", ("no_image",))]


def test_a_camera_that_waits_for_signals_may_be_silent_but_not_lost() -> None:
    line = Line(by_signal=True)
    for _ in range(20):
        line.step(True)
    # Faster, and slower again: neither is a falling rate.
    for _ in range(10):
        line.run(None, NO_NEW_FILE_AFTER_S - 1)
        line.step(True)
    assert line.found() == [("running", ())]
    line.run(None, NO_NEW_FILE_AFTER_S + 1)
    assert line.found() == [("no_signal", ("no_image",))]
    line.step(True)
    line.run(None, NO_SIGNAL_AFTER_S)
    line.source.trouble = "it does not answer"
    line.step(None)
    assert line.found() == [("running", ()), ("no_signal", ("no_image",))]


def test_another_cause_is_reported_at_once_and_another_text_after_a_while() -> None:
    line = Line()
    line.run(True, 1.0)
    line.run(None, NO_SIGNAL_AFTER_S + 1)
    line.source.trouble = "unplugged"
    line.run(None, REPEAT_S)
    reasons = [change.reason for change in line.changes if change.state == "no_signal"]
    assert reasons == ["no image comes", "no image comes: unplugged"]
    line.found()
    line.run(DARK, 1.0)
    assert line.found() == [("no_signal", ("dark",))]
    # Its numbers are no new text.
    line.run(Problem("dark", DARK.reason, ": 8 of 255"), 2 * REPEAT_S)
    assert line.found() == []
    assert line.health.signal_losses == 1


def test_causes_that_alternate_are_no_flood_of_events() -> None:
    line = Line()
    line.run(True, 1.0)
    black = Problem("one_colour", "the image is of one colour")
    for number in range(200):
        line.step((DARK, black)[number % 2])
    assert 10 < len([state for state, _ in line.found() if state == "no_signal"]) <= 18


def test_late_and_broken_frames_degrade_a_stream_until_they_are_few() -> None:
    line = Line()
    line.run(True, 30.0)
    for _ in range(10):
        line.step(LATE)
        line.run(True, 0.5)
    line.source.broken = 60
    line.run(True, 1.0)
    assert line.found() == [
        ("running", ()),
        ("degraded", ("late",)),
        ("degraded", ("broken", "late")),
    ]
    line.run(True, 2 * WINDOW_S)
    assert line.found()[-1] == ("running", ())


def test_the_loss_of_the_signal_comes_before_a_doubt() -> None:
    line = Line()
    line.run(True, 5.0)
    line.run(LATE, NO_SIGNAL_AFTER_S + 1)
    assert [state for state, _ in line.found()] == ["running", "degraded", "no_signal"]


def test_sinks_clock_and_rate_degrade_a_stream() -> None:
    line = Line()
    line.run(True, 200.0)
    line.sinks = [SinkCount("jsonl:x", 0, 0, "the disk is full")]
    line.run(True, SINK_FAILS_S + 2)
    line.wall_s += 3600
    line.run(True, 1.0)
    assert line.found() == [
        ("running", ()),
        ("degraded", ("sink",)),
        ("degraded", ("sink", "clock")),
    ]
    line.sinks = [SinkCount("jsonl:x", 9, 0)]
    line.run(True, JUMP_FOR_S + 2)
    assert line.found() == [("degraded", ("clock",)), ("running", ())]
    for _ in range(100):
        line.step(True, 0.2)
    assert line.found() == [("degraded", ("rate",))]


def test_a_time_that_jumps_does_not_change_times_in_states() -> None:
    line = Line()
    line.run(True, 10.0)
    line.wall_s -= 1e6
    line.run(True, 10.0)
    line.health.stop("", line.now_s)
    assert sum(line.health.times_s.values()) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("live", "fps", "verdicts"),
    # Half a second between two verdicts of a camera and of a video; a folder has one part an image.
    [(True, None, 21), (False, 2.0, 21), (False, None, 10)],
)
def test_rejects_of_all_parts_degrade_a_stream(live: bool, fps: float | None, verdicts: int) -> None:
    line = Line(live=live, fps=fps)
    needed = None
    for number in range(1, 60):
        line.step(True, 0.5)
        line.health.judged(Frame(IMAGE, number, round(line.now_s * 1e9), ""), IMAGE[None], REJECT)
        if needed is None and line.health._rejects.problem is not None:
            needed = number
    assert needed is not None
    assert needed <= verdicts
    assert needed > verdicts - 3
    assert line.found() == [("running", ()), ("degraded", ("rejects",))]


@pytest.mark.parametrize(
    ("live", "fps", "step_s"),
    # One dark part, which fills half a minute of a camera or of a video; each image of a folder is a part.
    [(True, None, 30.0), (False, 2.0, 30.0), (False, None, 0.5)],
)
def test_a_part_that_stays_in_view_counts_once_for_drift(
    live: bool, fps: float | None, step_s: float
) -> None:
    watch = DriftWatch({"brightness": [200.0 + number / 10 for number in range(300)]})
    line = Line(live=live, fps=fps, drift=watch)
    frames_of_part = round(step_s / 0.5)
    for number in range(10 * frames_of_part):
        line.step(True, 0.5)
        line.health.judged(Frame(IMAGE, number, round(line.now_s * 1e9), ""), IMAGE[None], GOOD)
    assert watch.problem is None
    for number in range(10 * frames_of_part, 30 * frames_of_part):
        line.step(True, 0.5)
        line.health.judged(Frame(IMAGE, number, round(line.now_s * 1e9), ""), IMAGE[None], GOOD)
    assert watch.problem is not None


def test_a_stream_tells_a_wrong_part_and_its_states_to_every_sink(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    images = [textured(int(level)) for level in rng.permutation(np.arange(450) < 396) * 100 + 50]
    record = StateRecord()
    source = ScriptedSource(lambda: iter(images), live=False)
    session = FakeSession(SIZE, score=lambda image: float(image.min() > 100))
    summary = stream(session, source, [record], size=SIZE, threshold=0.5)
    assert summary.rejected == 396
    assert record.states == ["starting", "running", "degraded", "stopped"]
    assert record.changes[2].causes == ("rejects",)
    assert set(summary.states_s) == {"starting", "running", "degraded"}
    assert sum(summary.states_s.values()) == pytest.approx(summary.duration_s, abs=1.0)
    assert "degraded" in summary.text()
    # The images are squeezed, which is said first.
    assert [each.name for each in caplog.records if each.levelname == "WARNING"] == [
        "edgead.streaming.examination",
        "edgead.streaming.health",
    ]


def with_edges(number: int) -> UInt8Array:
    """An image with a sharp disc, at another place for each number."""
    image = np.full((64, 64, 3), 60, np.uint8)
    cv2.circle(image, (20 + number % 20, 30), 10, (200, 200, 200), -1)
    return image


def test_a_stream_of_blurred_images_is_degraded() -> None:
    size = ModelSize(64, 64)
    policy = StreamPolicy(sharpness=sharpness_limit([with_edges(0)]))
    for sigma, expected in ((0.0, ()), (1.5, ("blurred",))):
        record = StateRecord()
        images = [with_edges(number) for number in range(15)]
        if sigma:
            images = [cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8) for image in images]
        source = ScriptedSource(lambda images=images: iter(images), live=False)
        stream(FakeSession(size), source, [record], size=size, threshold=2.0, policy=policy)
        assert record.changes[-2].causes == expected


class Counting(ScriptedSource):
    """A camera that counts the frames that it has given."""

    given = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            self.given += 1
            yield frame


@pytest.mark.parametrize("max_frames", [1, 20])
def test_every_frame_of_a_camera_is_in_one_count_also_the_last_ones(max_frames: int) -> None:
    def script() -> Iterator[UInt8Array]:
        for number in range(100_000):
            yield textured(50 + number % 150)

    source = Counting(script, live=True)
    source.broken = 3

    def score(image: UInt8Array) -> float:
        time.sleep(0.005)
        return 0.0

    policy = StreamPolicy(max_frames=max_frames)
    summary = stream(FakeSession(SIZE, score=score), source, [], size=SIZE, threshold=0.5, policy=policy)
    counted = summary.frames_scored + summary.frames_dropped + summary.frames_withheld + 3
    assert summary.frames_scored == max_frames
    assert summary.frames_seen == counted == source.given + 3
