"""Which frames belong to a part of a trigger, and what decides on it."""

import itertools
from typing import Any

import numpy as np
import pytest

from edgead.errors import InputError
from edgead.streaming import PartRule, StreamPolicy
from edgead.streaming.part_judge import decided_part
from edgead.streaming.parts import MOST_PENDING, Part, PartQueue, Scored
from edgead.streaming.policy import MOST_PART_FRAMES
from edgead.types import Frame, Verdict
from tests.helpers.part_line import THRESHOLD
from tests.helpers.stream_parts import textured

MAX_AGE_NS = 10**9
IMAGE = textured(1)
MAP = np.zeros((32, 64), np.float32)


def scored(index: int, score: float, captured_at_ns: int = 0, threshold: float = THRESHOLD) -> Scored:
    frame = Frame(image=IMAGE, index=index, captured_at_ns=captured_at_ns, source="test")
    return Scored(frame, Verdict(index, score, threshold, score > threshold, 1.0, ()), MAP)


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


def test_a_threshold_that_changes_between_the_frames_of_a_part_contradicts_none_of_them() -> None:
    for thresholds in itertools.product((50.0, 100.0), repeat=3):
        for scores, rejects in itertools.product(itertools.permutations((60.0, 90.0, 110.0)), (1, 2, 3)):
            frames = [scored(i, score, threshold=thresholds[i]) for i, score in enumerate(scores)]
            verdict = decided_part(Part(1, None, 0, 0, scored=frames), PartRule(0.0, 3, rejects), 1).verdict
            assert verdict.trigger is not None
            assert verdict.is_anomalous == (
                sum(one.is_anomalous for one in verdict.trigger.frames) >= rejects
            )
            assert verdict.is_anomalous == (verdict.anomaly_score > verdict.threshold)


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
