"""The judge of one camera: which of its frames are scored, what follows from a prediction, and its state and counts.

The loop asks each judge for its next frame and has it examined, scores the frames that are admitted, and gives each
judge the prediction of its frame. A judge never waits, so one camera does not delay another, and an error of its source
or of its images ends this camera alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import inf

from edgead.bundle.manifest import REBUILD
from edgead.errors import EdgeadError
from edgead.imaging.frame import cut_image
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.decision import NOT_FINITE
from edgead.streaming.camera import Camera
from edgead.streaming.capture import Capture
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.examination import Examination, Examined, frame_check
from edgead.streaming.freshness import Cause, Problem
from edgead.streaming.health import Health
from edgead.streaming.latency import LatencyHistogram
from edgead.streaming.line import PAUSED
from edgead.streaming.part_judge import PartJudge
from edgead.streaming.parts import Scored
from edgead.streaming.state import StateChange
from edgead.streaming.summary import Summary
from edgead.streaming.verdict import verdict_from_prediction
from edgead.types import Frame, Prediction, UInt8Array

# Longest time between two updates of the state.
TICK_S = 0.1
# Causes whose first frame is logged, and causes of which each frame is given to the sinks. Frames of other causes come
# in long rows, which the sinks receive as the loss of the signal.
_LOGGED = ("not_finite", "late", "size", "dark", "overexposed", "frozen")
_SINGLE = ("not_finite", "late")

_log = logging.getLogger(__name__)


class Judge:
    """Judge of one camera, for the thread of the loop.

    Args:
        camera: Camera with its opened source.
        outputs: Sinks of the camera, and those that it shares with others.
        on_state: Function that receives each change of the state, and the name of the camera.
        ready: Event that is set when a frame has come.
        size: Image size of the model.
        is_alone: Whether the stream has no other camera, so that a file may wait for its sinks in the loop.

    Attributes:
        capture: Frames of the camera; a context manager that the loop opens.
        examine: Examination of a frame of `take`, which may run in another thread.
        is_over: Whether no more frames of this camera are judged.
        failure: Reason of an error that has ended the camera; None without one.

    Raises:
        InputError: The line has a trigger, but the source is no camera.
    """

    def __init__(
        self,
        camera: Camera,
        outputs: Deliveries,
        on_state: Callable[[StateChange, str], None],
        ready: threading.Event,
        size: ModelSize,
        *,
        is_alone: bool = True,
    ) -> None:
        self._camera, self._line, self._outputs = camera, camera.line, outputs
        self._threshold, self._part = camera.threshold, camera.policy.part
        self._on_state, self._is_alone, self._size = on_state, is_alone, size
        self._check = frame_check(camera, outputs)
        policy, source = camera.policy, camera.source
        self._health = Health(source, outputs.all_counts, policy.sharpness, drift=policy.drift)
        self._parts: PartJudge | None = None
        if self._line.parts is not None and self._check is not None:
            self._parts = PartJudge(self._line.parts, outputs, source.uri, self._check.max_age_s)
        self.examine = Examination(camera, self._check, self._parts, size)
        self.capture = Capture(source, None if self._parts is None else self._line.needs, ready)
        self.is_over = self._in_hand = False
        self.failure: str | None = None
        self._latencies, self._ages = LatencyHistogram(), LatencyHistogram()
        self._withheld = Counter[Cause]()
        self._scored = self._rejected = self._idle = self._judged = 0
        self._started_s, self._duration_s = time.monotonic(), 0.0
        self._updated_s = -inf
        self._report(self._health.change)

    def take(self) -> tuple[Frame, int] | None:
        """Take the next frame in hand, and update the state of the camera if there is none.

        Returns:
            The frame, with the time at which it was taken, from `time.monotonic_ns`; None if there is none.

        Raises:
            BaseException: The error that ended an only source, after all frames before it were taken.
            EdgeadError: A sink failed, and the stream does not survive that.
            StopStream: A sink asked for the end.
        """
        self._outputs.check()
        try:
            frame, on_line = self._take()
        except Exception as error:
            self.fail(error)
            return None
        taken_ns = time.monotonic_ns()
        if frame is not None:
            self._in_hand = True
            return frame, taken_ns
        # The record of the end must not wait for room, because the other cameras would.
        if self.capture.ended and (self._is_alone or not self._outputs.is_full):
            self.stop("the source has ended")
        elif taken_ns / 1e9 - self._updated_s >= TICK_S / 2:
            self._update(None, None, on_line, taken_ns / 1e9)
        return None

    def admit(self, examined: Examined, taken_ns: int) -> tuple[Framing, UInt8Array] | None:
        """Withhold an examined frame if it has a problem, and update the state of the camera.

        Args:
            examined: Result of `examine`.
            taken_ns: Time of `take`.

        Returns:
            Framing and pixels to score; None for a frame that is not scored.
        """
        frame, problem, rows = examined
        self._in_hand = False
        # A frame of a file that is in hand gets its verdict, also if a pause has come just now.
        on_line = None if self._check is None else self._line.problem()
        self._update(frame, problem, on_line, taken_ns / 1e9)
        problem = problem or (PAUSED if on_line is PAUSED else None)
        if problem is not None:
            self._withhold(frame, problem)
            return None
        if self._parts is not None and not self._parts.waits_for(frame):
            self._idle += 1
            return None
        self._judged += 1
        return rows or cut_image(frame.image, self._camera.policy.view, self._size)

    def wait_s(self) -> float:
        """Withhold the parts that get no verdict any more; return the time until the next one gets too old."""
        return inf if self._parts is None else self._parts.settle(self._line.is_paused)

    def conclude(self, frame: Frame, taken_ns: int, rows: UInt8Array, prediction: Prediction) -> None:
        """Count a frame that was scored, and give its verdict, or the reason why it has none, to the sinks.

        With a trigger, the verdict is the one of the part.

        Args:
            frame: Examined frame.
            taken_ns: Time of `take`.
            rows: The frame's image at the model's size, or its tiles, (N, H, W, 3) uint8 RGB.
            prediction: Prediction for this frame alone.
        """
        verdict = verdict_from_prediction(
            frame, prediction, self._threshold, self._part, taken_ns=taken_ns, live=self._check is not None
        )
        if verdict is None:
            self._withhold(frame, Problem("not_finite", NOT_FINITE))
        elif self._check is not None and (late := self._check.late(frame, time.monotonic_ns())) is not None:
            self._withhold(frame, late)
        else:
            if verdict.age_ms is not None:
                self._ages.add(verdict.age_ms)
            self._scored += 1
            self._rejected += verdict.is_anomalous
            if self._check is None or not self._check.is_still:
                self._health.judged(frame, rows, verdict)
            scored = Scored(frame, verdict, prediction.anomaly_map[0, 0])
            decided = scored if self._parts is None else self._parts.add(scored)
            if decided is not None:
                self._latencies.add(decided.verdict.latency_ms)
                self._outputs.verdict(*decided)
        if self._judged == self._camera.policy.max_frames:
            self.stop(f"{self._judged} frames are judged")

    def fail(self, error: Exception) -> None:
        """End with the camera because of an error of its own; the other cameras go on.

        Args:
            error: The error. Of an only camera, it is raised.
        """
        if self._is_alone:
            raise error
        self.failure = reason_of(error)
        log_failure(self._camera.name, error)
        self.stop(self.failure)

    def stop(self, reason: str) -> None:
        """End with the camera, once: take the last thresholds, withhold the parts that wait, and report the end."""
        if self.is_over:
            return
        self.is_over = True
        self._threshold = self._outputs.take_threshold(self._line, self._part, self._threshold)
        if self._parts is not None:
            self._parts.end()
        self._report(self._health.stop(reason, time.monotonic()))
        self.capture.stop()
        self._duration_s = time.monotonic() - self._started_s

    def _take(self) -> tuple[Frame | None, Problem | None]:
        """Take the next frame, if there is one, and look at the line; return the problem of the whole stream."""
        if self._line.is_paused and self._check is None:
            # The frames of files wait.
            return None, PAUSED
        if not self._is_alone and self._outputs.is_full:
            # Those of a file with slow sinks, too, but the other cameras do not wait for them.
            return None, None
        frame = self.capture.take(0.0)
        self._threshold = self._outputs.take_threshold(self._line, self._part, self._threshold)
        return frame, None if self._check is None else self._line.problem()

    def _withhold(self, frame: Frame, problem: Problem) -> None:
        """Count a frame without a verdict, log the first of a cause, and give a single one to the sinks."""
        if problem.cause in _LOGGED and not self._withheld[problem.cause]:
            hint = f": {REBUILD}" if problem.cause == "not_finite" else ""
            _log.warning("%s: frame %d gets no verdict: %s%s", frame.source, frame.index, problem.text, hint)
        self._withheld[problem.cause] += 1
        self._health.withheld(problem.cause)
        if self._parts is not None:
            self._parts.skip(frame, problem)
        elif problem.cause in _SINGLE:
            self._outputs.withheld(frame, problem.text)
        elif problem.cause != "unchanged":
            self._outputs.no_verdict(problem.text)

    def _update(
        self, frame: Frame | None, problem: Problem | None, on_line: Problem | None, now_s: float
    ) -> None:
        """Update the health of the camera, and end a verdict that has become too old. See `Health.update`."""
        self._updated_s = now_s
        self._outputs.end_old_verdict(now_s)
        change = self._health.update(frame, problem, self.capture.dropped, now_s, time.time(), on_line)
        if change is not None:
            if "paused" in (change.state, change.previous) and change.state != change.previous:
                change = replace(change, set_by=self._line.set_by)
            self._report(change)

    def _report(self, change: StateChange) -> None:
        """Give a change of the state to the sinks and to the loop."""
        self._on_state(change, self._camera.name)
        self._outputs.state(change)

    def summary(self) -> Summary:
        """Return the counts after the end."""
        withheld, source = self._withheld.total(), self._camera.source
        # A frame that was in hand at the end is like one that waited.
        dropped = self.capture.dropped + source.dropped + (source.live and self._in_hand)
        return Summary(
            frames_seen=self._scored + self._idle + dropped + withheld + source.broken,
            frames_scored=self._scored,
            frames_dropped=dropped,
            frames_withheld=withheld,
            frames_broken=source.broken,
            frames_idle=self._idle,
            withheld={cause: self._withheld[cause] for cause in sorted(self._withheld)},
            rejected=self._rejected,
            signal_losses=self._health.signal_losses,
            states_s=self._health.times_s,
            latency_p50_ms=self._latencies.percentile(50),
            latency_p95_ms=self._latencies.percentile(95),
            latency_p99_ms=self._latencies.percentile(99),
            age_p50_ms=self._ages.percentile(50),
            age_p95_ms=self._ages.percentile(95),
            age_p99_ms=self._ages.percentile(99),
            duration_s=self._duration_s,
            parts=None if self._parts is None else self._parts.count(),
            sinks=self._outputs.counts(),
        )


def reason_of(error: Exception) -> str:
    """Return what an error is, for records; only the type of another exception, whose text may have secrets."""
    return error.what if isinstance(error, EdgeadError) else type(error).__name__


def log_failure(camera: str, error: Exception) -> None:
    """Log the error that ends a camera beside others."""
    _log.error(
        "%s: this camera has ended: %s", camera, error if isinstance(error, EdgeadError) else reason_of(error)
    )
