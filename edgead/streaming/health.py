"""Health of a stream: one state machine that the loop feeds, and one event for each change of the state.

    starting    no good image has come yet
    running     verdicts come, and no watchdog has a doubt
    degraded    verdicts come, and `edgead.streaming.watchdogs` doubt them or their delivery
    no_signal   no good image comes, see `edgead.streaming.freshness`
    paused      the line or a person has paused the stream, see `edgead.streaming.line`
    stopped     the stream is over

An event also comes if the causes of a state change, at most every `CAUSES_S` seconds, because they may alternate from
frame to frame, and if only their text does, at most every `REPEAT_S` seconds.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from edgead.imaging.image_statistics import mean_statistics
from edgead.streaming.drift import DriftWatch
from edgead.streaming.freshness import Cause, Problem, SignalWatch
from edgead.streaming.sinks.base import SinkCount
from edgead.streaming.sources import Source
from edgead.streaming.state import STATES, State, StateChange
from edgead.streaming.watchdogs import BlurWatch, ClockWatch, RateWatch, RejectWatch, ShareWatch, SinkWatch
from edgead.types import Frame, UInt8Array, Verdict

# Time without a good image from a live source after which the signal is lost.
NO_SIGNAL_AFTER_S = 3.0
# The same for a watched folder without a new image, and for a camera without a signal for one.
NO_NEW_FILE_AFTER_S = 60.0
# Shortest times before an event of the same state with new causes, and with a new text only.
CAUSES_S = 1.0
REPEAT_S = 10.0
# Time between two verdicts on different parts, so that one part which stays in view does not count many times.
_PART_S = 1.0
# The same for drift: its promise is about parts that count once, and a slow line shows one part for many seconds.
_DRIFT_PART_S = 30.0
_SINKS_EVERY_S = 1.0

_log = logging.getLogger(__name__)

_BAD_FRAMES: tuple[tuple[Cause, str], ...] = (
    ("broken", "are broken"),
    ("late", "are late"),
    ("not_finite", "have a score or a map that is not finite"),
)


class Health:
    """State of one stream. Times are seconds of one monotonic clock.

    Args:
        source: Source of the frames.
        sinks: Function that returns the counts of all sinks.
        sharpness_limit: Sharpness below which an image is blurred; None if it is not known.
        now_s: Start time; None for the current time.
        drift: Watch of drift; None if the images of the build are not known.

    Attributes:
        change: Latest change of the state.
        signal_losses: Number of times that the signal was lost.
    """

    def __init__(
        self,
        source: Source,
        sinks: Callable[[], Sequence[SinkCount]],
        sharpness_limit: float | None = None,
        now_s: float | None = None,
        drift: DriftWatch | None = None,
    ) -> None:
        now_s = time.monotonic() if now_s is None else now_s
        self._source, self._sinks = source, sinks
        self._signal = _signal_watch(source, now_s)
        self._shares = {cause: ShareWatch(cause, fault) for cause, fault in _BAD_FRAMES}
        self._rate = RateWatch(source.fps)
        self._clock, self._sink, self._rejects = ClockWatch(), SinkWatch(), RejectWatch()
        self._blur = None if sharpness_limit is None else BlurWatch(sharpness_limit)
        self._drift = drift
        self._taken, self._has_begun, self._bad = 0, False, Counter[Cause]()
        self._last_part = self._last_drift_part = -math.inf
        self._sinks_at_s = -math.inf
        self._sink_problem: Problem | None = None
        self._times_s: dict[str, float] = {}
        self._changed_at_s = self._since_s = now_s
        self.change = StateChange("starting", "starting")
        self.signal_losses = 0

    @property
    def times_s(self) -> dict[str, float]:
        """Time in each state so far, in seconds, in the order of the states."""
        return {state: self._times_s[state] for state in STATES if state in self._times_s}

    def judged(self, frame: Frame, rows: UInt8Array, verdict: Verdict) -> None:
        """Count the verdict on a frame in which something has moved.

        Of a camera or a video, one verdict in a second counts, and one in half a minute for drift.

        Args:
            frame: Frame with a verdict.
            rows: Its image at the model's size, or its tiles, (N, H, W, 3) uint8 RGB.
            verdict: Verdict on the frame.
        """
        part: float = frame.index
        if self._source.live:
            part = frame.captured_at_ns / 1e9
        elif self._source.fps:
            part = frame.index / self._source.fps
        if part - self._last_part >= _PART_S:
            self._last_part = part
            self._rejects.add(verdict.is_anomalous)
            counts_for_drift = self._drift is not None and (
                not (self._source.live or self._source.fps) or part - self._last_drift_part >= _DRIFT_PART_S
            )
            if self._blur is None and not counts_for_drift:
                return
            measured = mean_statistics(rows)
            if self._blur is not None:
                self._blur.add(measured["sharpness"])
            if self._drift is not None and counts_for_drift:
                self._last_drift_part = part
                values = {"score": verdict.anomaly_score, **measured}
                self._drift.add(values, rejected=verdict.is_anomalous)

    def withheld(self, cause: Cause) -> None:
        """Count a frame without a verdict."""
        self._bad[cause] += 1

    def update(
        self,
        frame: Frame | None,
        problem: Problem | None,
        dropped: int,
        now_s: float,
        wall_s: float,
        on_line: Problem | None = None,
    ) -> StateChange | None:
        """Update the state.

        Args:
            frame: Frame that has just come; None if none has.
            problem: Reason why this frame is not scored; None for a good frame.
            dropped: Number of frames so far that a newer frame replaced.
            now_s: Current time.
            wall_s: Current time of the clock that shows date and time.
            on_line: Problem of the whole stream: it is paused, or its trigger does not work.

        Returns:
            The change of the state; None if nothing changed.
        """
        self._taken += frame is not None
        good = frame is not None and problem is None
        self._has_begun |= good
        is_paused = on_line is not None and on_line.cause == "paused"
        silent_s, loss = 0.0, None
        if self._signal is not None:
            silent_s = self._signal.silent_s(now_s)
            if on_line is None or is_paused:
                loss = self._signal.loss(problem, good, now_s, self._source.trouble)
            else:
                loss = self._signal.loss(on_line, False, now_s, self._source.trouble)
        doubts = self._doubts(dropped, now_s, wall_s, has_signal=self._has_begun and loss is None)
        if on_line is not None and is_paused:
            return self._set("paused", [on_line], now_s, silent_s)
        if loss is not None:
            return self._set("no_signal", [loss], now_s, silent_s)
        if not self._has_begun:
            return self._set("starting", [], now_s, silent_s)
        return self._set("degraded" if doubts else "running", doubts, now_s, silent_s)

    def stop(self, reason: str, now_s: float) -> StateChange:
        """Set the last state.

        Args:
            reason: Why the stream has stopped.
            now_s: Current time.

        Returns:
            The change of the state.
        """
        self._count_time(now_s)
        self.change = StateChange("stopped", self.change.state, reason=reason)
        return self.change

    def _set(
        self, state: State, problems: Sequence[Problem], now_s: float, silent_s: float
    ) -> StateChange | None:
        """Set the state with the problems that cause it; return the change, if it is one."""
        self._count_time(now_s)
        before, causes = self.change, tuple(each.cause for each in problems)
        reason = "; ".join(each.reason for each in problems)
        if state == before.state:
            is_new = causes != before.causes or reason != before.reason
            wait_s = REPEAT_S if causes == before.causes else CAUSES_S
            if not is_new or now_s - self._changed_at_s < wait_s:
                return None
        self._changed_at_s = now_s
        self.signal_losses += state == "no_signal" and before.state != "no_signal"
        self.change = StateChange(state, before.state, causes, reason, silent_s)
        if state == "degraded":
            _log.warning("%s: degraded: %s", self._source.uri, reason)
        return self.change

    def _count_time(self, now_s: float) -> None:
        state = self.change.state
        self._times_s[state] = self._times_s.get(state, 0.0) + now_s - self._since_s
        self._since_s = now_s

    def _doubts(self, dropped: int, now_s: float, wall_s: float, *, has_signal: bool) -> list[Problem]:
        """Return the doubts of all watchdogs."""
        frames = self._taken + dropped + self._source.dropped + self._source.broken
        self._bad["broken"] = self._source.broken
        if now_s - self._sinks_at_s >= _SINKS_EVERY_S:
            self._sinks_at_s, self._sink_problem = now_s, self._sink.update(now_s, self._sinks())
        has_rate = self._source.live and not self._source.by_signal
        found = [
            *(watch.update(now_s, frames, self._bad[cause]) for cause, watch in self._shares.items()),
            self._rate.update(now_s, frames, has_signal=has_signal) if has_rate else None,
            None if self._blur is None else self._blur.problem,
            self._rejects.problem,
            None if self._drift is None else self._drift.problem,
            self._sink_problem,
            self._clock.update(now_s, wall_s),
        ]
        return [each for each in found if each is not None]


def _signal_watch(source: Source, now_s: float) -> SignalWatch | None:
    """Make the watch of a source that never ends by itself; None for others."""
    if source.live and not source.by_signal:
        # A slow camera has two images in this time.
        silence_s = max(NO_SIGNAL_AFTER_S, 2.0 / source.fps if source.fps else 0.0)
        return SignalWatch(silence_s, now_s)
    if source.endless or source.by_signal:
        return SignalWatch(
            NO_NEW_FILE_AFTER_S, now_s, trouble_after_s=NO_SIGNAL_AFTER_S, no_image="no new image comes"
        )
    return None
