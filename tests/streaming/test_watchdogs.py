"""The watchdogs of a stream that gives verdicts, with times made by hand."""

import numpy as np
import pytest

from edgead.streaming.sinks import SinkCount
from edgead.streaming.watchdogs import (
    BLURRED_IMAGES,
    EXPECTED_REJECTS,
    JUMP_FOR_S,
    REJECTS_AHEAD,
    SINK_FAILS_S,
    SINK_LOST_FOR_S,
    BlurWatch,
    ClockWatch,
    RateWatch,
    RejectWatch,
    ShareWatch,
    SinkWatch,
)


def test_many_broken_frames_are_a_doubt_until_they_are_few() -> None:
    watch = ShareWatch("broken", "are broken")
    doubts = {}
    # 15 frames a second for 60 s; from 20 to 30 s every fifth is broken.
    bad = 0
    for number in range(900):
        now_s = number / 15
        bad += 20 <= now_s < 30 and number % 5 == 0
        problem = watch.update(now_s, number + 1, bad)
        doubts[now_s] = None if problem is None else problem.text
    assert all(text is None for now_s, text in doubts.items() if now_s < 20)
    # A share of a tenth of the last ten seconds is reached after about five.
    assert all(text is not None for now_s, text in doubts.items() if 26 < now_s < 30)
    assert all(text is None for now_s, text in doubts.items() if now_s > 41)
    # The text stays while the doubt lasts.
    assert len(set(doubts.values())) == 2


def test_single_broken_frames_are_no_doubt() -> None:
    watch = ShareWatch("broken", "are broken")
    for number in range(9000):
        assert watch.update(number / 15, number + 1, number // 50) is None


def rates(watch: RateWatch, *phases: tuple[float, float]) -> list[bool]:
    """Whether there is a doubt at the end of each phase: its length in seconds, and its frames a second."""
    now_s, frames, found = 0.0, 0.0, []
    for length_s, fps in phases:
        for _ in range(round(length_s * 10)):
            now_s += 0.1
            frames += fps / 10
            problem = watch.update(now_s, int(frames), has_signal=True)
        found.append(problem is not None)
    return found


def test_a_camera_that_halves_its_rate_is_a_doubt_until_the_rate_is_back() -> None:
    assert rates(RateWatch(None), (130, 30), (30, 15), (30, 30)) == [False, True, False]
    assert rates(RateWatch(None), (130, 30), (300, 25)) == [False, False]
    # Its windows are longer than 10 seconds.
    assert rates(RateWatch(0.5), (500, 0.5), (120, 0.25), (120, 0.5)) == [False, True, False]


def test_no_rate_is_learnt_of_a_camera_with_a_trigger() -> None:
    rng = np.random.default_rng(0)
    phases = [(10.0, float(rate)) for rate in rng.uniform(1, 10, 200)]
    assert not any(rates(RateWatch(None), *phases))


def test_a_time_without_a_signal_does_not_lower_the_rate() -> None:
    watch = RateWatch(None)
    rates(watch, (130, 30))
    assert watch.update(1000.0, 3900, has_signal=False) is None
    assert watch.update(1001.0, 3900, has_signal=True) is None
    assert watch.update(1012.0, 3900 + 330, has_signal=True) is None


@pytest.mark.parametrize("jump_s", [3600.0, -1.5])
def test_a_jump_of_the_clock_is_reported_for_a_while(jump_s: float) -> None:
    watch = ClockWatch()
    # A clock that is slewed by 500 ppm, the most that adjtime does.
    for number in range(1000):
        assert watch.update(number * 0.1, 1e9 + number * 0.1 * 1.0005) is None
    problem = watch.update(100.0, 1e9 + 100.05 + jump_s)
    assert problem is not None
    assert f"{jump_s:+.1f}" in problem.text
    assert watch.update(99.9 + JUMP_FOR_S, 1e9 + 100 + jump_s + JUMP_FOR_S) is not None
    assert watch.update(100.1 + JUMP_FOR_S, 1e9 + 100.2 + jump_s + JUMP_FOR_S) is None


def test_a_sink_that_fails_or_loses_events_is_a_doubt() -> None:
    watch = SinkWatch()
    good, fails = SinkCount("status:", 9, 0), SinkCount("jsonl:x", 3, 0, "the disk is full")
    assert watch.update(0.0, [good, fails]) is None
    assert watch.update(1.0, [good, SinkCount("jsonl:x", 4, 0)]) is None
    assert watch.update(2.0, [good, fails]) is None
    problem = watch.update(2.0 + SINK_FAILS_S, [good, fails])
    assert problem is not None
    assert "jsonl:x" in problem.text
    assert "status:" not in problem.text
    assert watch.update(6.0, [good, SinkCount("jsonl:x", 5, 0)]) is None
    lost = SinkCount("jsonl:x", 5, 2)
    assert watch.update(7.0, [good, lost]) is not None
    assert watch.update(6.5 + SINK_LOST_FOR_S, [good, lost]) is not None
    assert watch.update(7.5 + SINK_LOST_FOR_S, [good, lost]) is None


def parts_to_alarm(rng: np.random.Generator, rate: float) -> int:
    """Number of parts up to the alarm, each of them rejected with a probability."""
    watch, parts = RejectWatch(), 0
    while watch.problem is None:
        watch.add(bool(rng.random() < rate))
        parts += 1
    return parts


def mean_parts_to_alarm(rate: float) -> float:
    """The expected number, from the linear equations of the Markov chain."""
    equations = np.eye(REJECTS_AHEAD)
    for ahead in range(REJECTS_AHEAD):
        equations[ahead, max(ahead - 1, 0)] -= 1 - rate
        if ahead + 1 < REJECTS_AHEAD:
            equations[ahead, ahead + 1] -= rate
    return float(np.linalg.solve(equations, np.ones(REJECTS_AHEAD))[0])


@pytest.mark.parametrize("rate", [0.45, 0.88])
def test_the_alarm_of_rejects_comes_as_often_as_the_theory_says(rate: float) -> None:
    rng = np.random.default_rng(0)
    found = [parts_to_alarm(rng, rate) for _ in range(400)]
    error = float(np.std(found)) / 400**0.5
    assert abs(float(np.mean(found)) - mean_parts_to_alarm(rate)) < 4 * error


def test_the_numbers_in_the_text_about_false_alarms() -> None:
    assert mean_parts_to_alarm(EXPECTED_REJECTS) == pytest.approx(2.3e6, rel=0.02)
    assert mean_parts_to_alarm(0.1) == pytest.approx(4.9e9, rel=0.01)
    assert mean_parts_to_alarm(0.88) == pytest.approx(13, rel=0.02)
    assert mean_parts_to_alarm(1.0) == pytest.approx(10)


def test_a_line_with_defects_has_no_alarm_and_a_wrong_part_has_one_until_it_is_changed() -> None:
    rng = np.random.default_rng(1)
    watch = RejectWatch()
    for rejected in rng.random(100_000) < 0.1:
        watch.add(bool(rejected))
        assert watch.problem is None
    for rejected in rng.permutation(np.arange(450) < 396):
        watch.add(bool(rejected))
    assert watch.problem is not None
    for rejected in rng.random(100) < 0.1:
        watch.add(bool(rejected))
    assert watch.problem is None


def test_images_that_are_all_blurred_are_a_doubt_until_most_are_sharp() -> None:
    watch = BlurWatch(0.1)
    for measured in [0.05] * (BLURRED_IMAGES - 1) + [0.2] + [0.05] * (BLURRED_IMAGES - 1):
        watch.add(measured)
        watch.add(None)
        assert watch.problem is None
    watch.add(0.05)
    assert watch.problem is not None
    for _ in range(BLURRED_IMAGES // 2 + 1):
        assert watch.problem is not None
        watch.add(0.2)
    assert watch.problem is None
