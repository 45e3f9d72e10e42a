"""Parts that a trigger has announced, each with the frames that show it, until its verdict.

A frame belongs to the latest part that was in front of the camera when the frame was captured, and to no other. So a
frame from before a trigger never counts for it, and no frame counts for two parts. A part gets the first frames of its
own that have no problem. Once a frame of a later part has come, it gets no more.

Every part leaves the queue once, in the order of the triggers: with a verdict, or with the problem that withholds it.
Triggers come in threads of their own, frames in the capture thread, and the thread of the loop takes the parts out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from edgead.streaming.freshness import Problem
from edgead.streaming.policy import MOST_PART_FRAMES, PartRule
from edgead.types import Float32Array, Frame, Verdict

# Triggers that wait for their verdicts. More are a fault of what gives them.
MOST_PENDING = 1000


class Scored(NamedTuple):
    """A frame with its verdict and its anomaly map, (h, w) float32."""

    frame: Frame
    verdict: Verdict
    anomaly_map: Float32Array


@dataclass(eq=False, slots=True)
class Part:
    """A part that waits for its verdict.

    Attributes:
        number: Number of its trigger.
        part_id: Text that came with the trigger.
        triggered_ns: Time of the trigger, from `time.monotonic_ns`.
        begins_ns: Time from which its frames count.
        waiting: Indices of its frames that are not scored yet.
        scored: Its frames with a verdict.
        problem: Problem of its latest frame that got no verdict.
        is_passed: Whether no more frames of it can come, because a frame of a later part has come.
    """

    number: int
    part_id: str | None
    triggered_ns: int
    begins_ns: int
    waiting: set[int] = field(default_factory=set)
    scored: list[Scored] = field(default_factory=list)
    problem: Problem | None = None
    is_passed: bool = False


class PartQueue:
    """Parts that wait for their verdicts; may be used from any thread.

    Args:
        rule: Rule of the verdicts.
    """

    def __init__(self, rule: PartRule) -> None:
        self.rule = rule
        self._lock = threading.Lock()
        self._parts: deque[Part] = deque()
        self._part_of: dict[int, Part] = {}
        self._number = self._missed = 0
        self._latest_ns = 0
        self._is_closed = False

    @property
    def triggered(self) -> int:
        """Number of triggers so far."""
        return self._number

    def add(
        self, part_id: str | None = None, at_ns: int | None = None, problem: Problem | None = None
    ) -> int | None:
        """Add the part of a trigger.

        Args:
            part_id: Text that came with the trigger.
            at_ns: Time of the trigger, from `time.monotonic_ns`; None for now.
            problem: Reason why the part gets no verdict, if that is known.

        Returns:
            Number of the trigger; None if it is missed, because too many wait or the stream has ended.
        """
        with self._lock:
            if self._is_closed:
                return None
            self._number += 1
            if len(self._parts) >= MOST_PENDING:
                self._missed += 1
                return None
            # Threads of one trigger may overtake each other by a moment.
            self._latest_ns = max(self._latest_ns, time.monotonic_ns() if at_ns is None else at_ns)
            begins_ns = self._latest_ns + round(self.rule.delay_s * 1e9)
            part = Part(self._number, part_id, self._latest_ns, begins_ns)
            part.problem, part.is_passed = problem, problem is not None
            self._parts.append(part)
            return self._number

    def take_missed(self) -> int:
        """Return the number of triggers that were missed since the last call."""
        with self._lock:
            missed, self._missed = self._missed, 0
            return missed

    def claim(self, frame: Frame) -> bool:
        """Give a frame that was just captured to its part; return False if no part needs it."""
        with self._lock:
            part = next((p for p in reversed(self._parts) if p.begins_ns <= frame.captured_at_ns), None)
            if part is None:
                return False
            for earlier in self._parts:
                if earlier is part:
                    break
                earlier.is_passed = True
            n_frames = len(part.scored) + len(part.waiting)
            if part.is_passed or n_frames >= self.rule.frames or len(self._part_of) >= MOST_PART_FRAMES:
                return False
            part.waiting.add(frame.index)
            self._part_of[frame.index] = part
            return True

    def part_of(self, frame: Frame) -> Part | None:
        """Return the part that waits for a frame, or None."""
        with self._lock:
            return self._part_of.get(frame.index)

    def skip(self, part: Part, frame: Frame, problem: Problem) -> None:
        """Take a frame with a problem back from its part, so that the next one counts."""
        with self._lock:
            self._release(part, frame.index)
            part.problem = problem

    def score(self, part: Part, scored: Scored) -> bool:
        """Add a verdict on a frame of a part; return True if the part has all its frames."""
        with self._lock:
            self._release(part, scored.frame.index)
            part.scored.append(scored)
            return len(part.scored) == self.rule.frames

    def take_overdue(self, now_ns: int, max_age_ns: int) -> list[Part]:
        """Take the parts out that get no verdict any more: too much time has passed, or the next part has come.

        Args:
            now_ns: Current time, from `time.monotonic_ns`.
            max_age_ns: Largest time from a part in front of the camera to its verdict, in nanoseconds.
        """
        taken: list[Part] = []
        with self._lock:
            while self._parts:
                part = self._parts[0]
                passed = part.is_passed and not part.waiting and len(part.scored) < self.rule.frames
                if not passed and now_ns - part.begins_ns <= max_age_ns:
                    break
                taken.append(self._take_first())
        return taken

    def take_up_to(self, part: Part) -> list[Part]:
        """Take a part and all before it out."""
        taken: list[Part] = []
        with self._lock:
            while part in self._parts:
                taken.append(self._take_first())
        return taken

    def take_all(self, *, close: bool = False) -> list[Part]:
        """Take all parts out; with `close`, no part is added any more."""
        with self._lock:
            self._is_closed = self._is_closed or close
            return [self._take_first() for _ in range(len(self._parts))]

    def next_end_ns(self, max_age_ns: int) -> int | None:
        """Return the time at which the first part gets too old, or None if no part waits."""
        with self._lock:
            return self._parts[0].begins_ns + max_age_ns if self._parts else None

    def _take_first(self) -> Part:
        part = self._parts.popleft()
        for index in part.waiting:
            del self._part_of[index]
        return part

    def _release(self, part: Part, index: int) -> None:
        part.waiting.discard(index)
        self._part_of.pop(index, None)
