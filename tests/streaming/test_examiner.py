"""Frames that are examined ahead of the model: at the same time, in their order, and no more than it scores soon."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from edgead.streaming.examination import Examined
from edgead.streaming.examiner import AHEAD_S, Examiner
from edgead.streaming.judge import Judge
from tests.helpers.stream_parts import frame, textured
from tests.helpers.trigger_parts import LIMIT_S, wait_until

FRAME = frame(textured(50))
# The examiner only asks which frame is of which camera.
CAMERAS = [object.__new__(Judge) for _ in range(4)]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))


def test_frames_of_one_moment_are_examined_at_the_same_time_and_taken_in_their_order() -> None:
    ready, all_at_once, first = threading.Event(), threading.Barrier(3), threading.Event()

    def examine(number: int) -> Examined:
        all_at_once.wait(LIMIT_S)
        if number == 0:
            assert first.wait(LIMIT_S)
        return Examined(FRAME)

    with Examiner(3, 1, ready) as examiner:
        examiner.score_s = AHEAD_S / 10
        for number in range(3):
            assert examiner.room == 3 - number
            examiner.begin(CAMERAS[number], number, partial(examine, number))
        assert [examiner.has_frame_of(one) for one in CAMERAS] == [True, True, True, False]
        wait_until(lambda: sum(one.examined.done() for one in examiner._taken) == 2)
        assert ready.is_set()
        assert examiner.take() == []
        first.set()
        taken = []
        wait_until(lambda: taken.extend(examiner.take()) or len(taken) == 3)
    assert [one.taken_ns for one in taken] == [0, 1, 2]
    assert examiner.room == 3


@pytest.mark.parametrize(
    ("score_s", "batch", "room"), [(AHEAD_S * 2, 1, 1), (AHEAD_S / 2, 1, 2), (0.0, 1, 4), (AHEAD_S * 2, 3, 3)]
)
def test_as_many_frames_are_taken_as_the_model_scores_soon(score_s: float, batch: int, room: int) -> None:
    with Examiner(4, batch, threading.Event()) as examiner:
        examiner.score_s = score_s
        assert examiner.room == room


def test_a_batch_waits_for_the_frames_in_hand() -> None:
    go_on = threading.Event()

    def examine() -> Examined:
        assert go_on.wait(LIMIT_S)
        return Examined(FRAME)

    with Examiner(2, 2, threading.Event()) as examiner:
        examiner.begin(CAMERAS[0], 0, lambda: Examined(FRAME))
        examiner.begin(CAMERAS[1], 1, examine)
        wait_until(lambda: examiner._taken[0].examined.done())
        assert examiner.take() == []
        go_on.set()
        wait_until(lambda: examiner._taken[1].examined.done())
        assert [one.taken_ns for one in examiner.take()] == [0, 1]


@pytest.mark.parametrize("cameras", [1, 4])
def test_the_only_frame_in_hand_needs_no_thread_and_keeps_its_error(cameras: int) -> None:
    def fail() -> Examined:
        raise ValueError(threading.current_thread().name)

    with Examiner(cameras, 1, threading.Event()) as examiner:
        examiner.score_s = AHEAD_S
        examiner.begin(CAMERAS[0], 0, fail)
        (taken,) = examiner.take()
    with pytest.raises(ValueError, match=threading.current_thread().name):
        taken.examined.result()
