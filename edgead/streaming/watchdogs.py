"""Watchdogs of a stream that gives verdicts: each finds one cause for a doubt, and when the doubt has passed.

Their texts do not change while the doubt lasts, because a new text is a new event. All times are seconds of one
monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

from edgead.streaming.freshness import Cause, Problem
from edgead.streaming.sinks.base import SinkCount

# Frames of one cause that are many: at least this number and share within a time. They are no longer many below the
# half of the share.
WINDOW_S = 10.0
LEAST_BAD = 3
BAD_SHARE = 0.1
_SAMPLE_S = 0.1

# Share of the learnt rate below which the rate has fallen, and above which it is back. A camera that halves its rate in
# weak light is below.
FALLEN, BACK = 0.7, 0.8
# A rate is learnt from a number of windows that differ by at most this share from their median. The rates of a camera
# with a trigger are alike for so long by chance once in a billion windows.
_LEARN_WINDOWS = 12
_STEADY = 0.1
_LEAST_FRAMES = 20.0

# Difference of the two clocks that no correction of a clock makes, and the time for which it is reported.
JUMP_S = 1.0
JUMP_FOR_S = 60.0

# A sink that fails for a moment is tried again; a loss is reported for a while.
SINK_FAILS_S = 3.0
SINK_LOST_FOR_S = 60.0

# See `RejectWatch`.
EXPECTED_REJECTS = 0.2
REJECTS_AHEAD = 10

# See `BlurWatch`.
BLURRED_IMAGES = 10


class ShareWatch:
    """Watches the share of frames that have one fault.

    Args:
        cause: Cause of the doubt.
        fault: The fault, as the end of a sentence that begins with numbers of frames.
    """

    def __init__(self, cause: Cause, fault: str) -> None:
        self._cause, self._fault = cause, fault
        self._totals: deque[tuple[float, int, int]] = deque([(float("-inf"), 0, 0)])
        self._problem: Problem | None = None

    def update(self, now_s: float, frames: int, bad: int) -> Problem | None:
        """Return the doubt, if there is one.

        Args:
            now_s: Current time in seconds.
            frames: Number of all frames so far, the bad ones included.
            bad: Number of frames with the fault so far.
        """
        if now_s - self._totals[-1][0] >= _SAMPLE_S:
            self._totals.append((now_s, frames, bad))
        while len(self._totals) > 2 and now_s - self._totals[1][0] >= WINDOW_S:
            self._totals.popleft()
        _, frames_then, bad_then = self._totals[0]
        new, new_bad = frames - frames_then, bad - bad_then
        if self._problem is None and new_bad >= LEAST_BAD and new_bad >= BAD_SHARE * new:
            self._problem = Problem(self._cause, f"{new_bad} of {new} frames {self._fault}")
        elif self._problem is not None and new_bad < BAD_SHARE / 2 * max(new, 1):
            self._problem = None
        return self._problem


class RateWatch:
    """Watches whether the rate of a free-running camera falls below the rate that was learnt.

    The rate is learnt as the median of twelve windows in a row that are alike. The frames of a camera with a trigger
    come irregularly, so nothing is learnt of it.

    Args:
        fps: Nominal frame rate in frames per second, None if unknown. The windows of a slow camera are longer.
    """

    def __init__(self, fps: float | None) -> None:
        self._window_s = max(WINDOW_S, _LEAST_FRAMES / fps if fps else 0.0)
        self._start: tuple[float, int] | None = None
        self._rates: deque[float] = deque(maxlen=_LEARN_WINDOWS)
        self._learnt: float | None = None
        self._problem: Problem | None = None

    def update(self, now_s: float, frames: int, *, has_signal: bool) -> Problem | None:
        """Return the doubt, if there is one.

        Args:
            now_s: Current time in seconds.
            frames: Number of all frames so far, those without a verdict included.
            has_signal: Whether good images come. A time without them is no window.
        """
        if not has_signal:
            self._start = None
            return self._problem
        if self._start is None:
            self._start = now_s, frames
        then_s, frames_then = self._start
        if now_s - then_s < self._window_s:
            return self._problem
        self._start = now_s, frames
        rate = (frames - frames_then) / (now_s - then_s)
        if self._learnt is None:
            self._learn(rate)
        elif self._problem is None and rate < FALLEN * self._learnt:
            self._problem = Problem(
                "rate", f"{rate:.1f} images a second come, {self._learnt:.1f} came before"
            )
        elif rate >= BACK * self._learnt:
            self._problem = None
        return self._problem

    def _learn(self, rate: float) -> None:
        self._rates.append(rate)
        usual = median(self._rates)
        if len(self._rates) == _LEARN_WINDOWS and all(
            abs(each - usual) <= _STEADY * usual for each in self._rates
        ):
            self._learnt = usual


class ClockWatch:
    """Watches whether the clock of the machine jumps, which the times of the records follow. Ages do not."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._until_s = 0.0
        self._problem: Problem | None = None

    def update(self, now_s: float, wall_s: float) -> Problem | None:
        """Return the doubt, if there is one.

        Args:
            now_s: Current time of the monotonic clock, in seconds.
            wall_s: Current time of the clock that shows date and time, in seconds.
        """
        offset_s = wall_s - now_s
        jump_s = 0.0 if self._offset_s is None else offset_s - self._offset_s
        self._offset_s = offset_s
        if abs(jump_s) > JUMP_S:
            self._until_s = now_s + JUMP_FOR_S
            self._problem = Problem(
                "clock", f"the clock jumped by {jump_s:+.1f} s: times of earlier records differ"
            )
        elif self._problem is not None and now_s >= self._until_s:
            self._problem = None
        return self._problem


class SinkWatch:
    """Watches whether sinks fail or lose events."""

    def __init__(self) -> None:
        self._lost: dict[str, int] = {}
        self._failing_since_s: dict[str, float] = {}
        self._lost_at_s: dict[str, float] = {}
        self._texts: dict[str, str] = {}

    def update(self, now_s: float, counts: Sequence[SinkCount]) -> Problem | None:
        """Return the doubt, if there is one.

        Args:
            now_s: Current time in seconds.
            counts: Counts of all sinks.
        """
        for count in counts:
            name = count.sink
            if count.lost > self._lost.get(name, 0):
                self._lost[name], self._lost_at_s[name] = count.lost, now_s
            if count.problem is None:
                self._failing_since_s.pop(name, None)
            else:
                self._failing_since_s.setdefault(name, now_s)
            fails = now_s - self._failing_since_s.get(name, float("inf")) >= SINK_FAILS_S
            loses = now_s - self._lost_at_s.get(name, float("-inf")) < SINK_LOST_FOR_S
            if fails or loses:
                self._texts.setdefault(name, f"{name}: {count.problem or 'it loses events'}")
            else:
                self._texts.pop(name, None)
        return Problem("sink", "; ".join(self._texts.values())) if self._texts else None


class RejectWatch:
    """Watches whether more parts are rejected than a line can have: a wrong part, view or light.

    A counter goes up by one for each reject and down by one, to 0 at least, for each good part. The doubt begins at
    `REJECTS_AHEAD` and ends at 0. This is Page's cumulative sum test (Biometrika 41, 1954) of the reject rate
    `EXPECTED_REJECTS` against its complement. If 20 % of the parts are rejected, independently of one another, a false
    alarm comes after 2.3 million parts on average, if 10 %, after 4.9e9. If 88 % are rejected, the alarm comes after 13
    parts on average, and if all are, after 10.
    """

    def __init__(self) -> None:
        self._ahead = self._parts = self._rejects = 0
        self._problem: Problem | None = None

    def add(self, rejected: bool) -> None:
        """Count a verdict."""
        self._ahead = min(max(self._ahead + (1 if rejected else -1), 0), REJECTS_AHEAD)
        if self._ahead == 0:
            self._parts = self._rejects = 0
            self._problem = None
            return
        self._parts += 1
        self._rejects += rejected
        if self._problem is None and self._ahead == REJECTS_AHEAD:
            self._problem = Problem(
                "rejects", f"{self._rejects} of {self._parts} are rejected: wrong part, view or light?"
            )

    @property
    def problem(self) -> Problem | None:
        """The doubt, if there is one."""
        return self._problem


class BlurWatch:
    """Watches whether the images are sharp.

    The doubt begins if `BLURRED_IMAGES` images in a row are blurred, and ends if most of as many are sharp. With the
    worst share of sharp images below the limit that was measured, 16 % (`edgead.imaging.sharpness`), a false alarm
    needs a chance of 0.16^10 = 1e-8. Images without edges do not count.

    Args:
        limit: Sharpness below which an image is blurred.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._sharp: deque[bool] = deque(maxlen=BLURRED_IMAGES)
        self._problem: Problem | None = None

    def add(self, measured: float | None) -> None:
        """Count an image with its sharpness; None if it has no edges."""
        if measured is None:
            return
        self._sharp.append(measured >= self._limit)
        if self._problem is None and len(self._sharp) == BLURRED_IMAGES and not any(self._sharp):
            self._problem = Problem(
                "blurred", "the images are blurred: check the focus, the lens and the exposure time"
            )
        elif 2 * sum(self._sharp) > BLURRED_IMAGES:
            self._problem = None

    @property
    def problem(self) -> Problem | None:
        """The doubt, if there is one."""
        return self._problem
