"""The loop of a stream: it takes frames from a source, scores them, and gives the verdicts to the sinks.

One thread captures frames, the calling thread scores them, and each sink has a thread of its own. These modules
describe which frames are dropped (`capture`) or withheld (`freshness`), what a slow or failed sink loses (`delivery`),
the states (`health`), and the verdict on a part of a trigger (`part_judge`). An error of the source or of the model
ends the stream. A failure of a sink ends the stream of a file, which can be streamed again; a camera goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from math import inf

import numpy as np

from edgead.bundle.manifest import REBUILD
from edgead.errors import EdgeadError, InputError
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime.base import Session
from edgead.scoring.decision import NOT_FINITE
from edgead.streaming.capture import Capture
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.freshness import Cause, FrameCheck, Problem
from edgead.streaming.health import Health
from edgead.streaming.latency import LatencyHistogram
from edgead.streaming.line import PAUSED, LineControl
from edgead.streaming.part_judge import PartJudge
from edgead.streaming.parts import Scored
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sources import Source
from edgead.streaming.state import StateChange
from edgead.streaming.summary import Summary
from edgead.streaming.systemd import Service
from edgead.streaming.verdict import verdict_from_prediction
from edgead.types import Frame

# Longest wait for a frame before the loop checks whether it should stop.
TICK_S = 0.1
# Causes whose first frame is logged, and causes of which each frame is given to the sinks. Frames of other causes come
# in long rows, which the sinks receive as the loss of the signal.
_LOGGED = ("not_finite", "late", "size", "dark", "overexposed", "frozen")
_SINGLE = ("not_finite", "late")

_DEFAULTS = StreamPolicy()

_log = logging.getLogger(__name__)


def stream(
    session: Session,
    source: Source,
    sinks: Sequence[Sink],
    *,
    size: ModelSize,
    threshold: float,
    policy: StreamPolicy = _DEFAULTS,
    stop: threading.Event | None = None,
    line: LineControl | None = None,
) -> Summary:
    """Score the frames of a source until it ends, `stop` is set, a sink stops it, or `policy.max_frames` are judged.

    The caller closes the session and the source. The sinks are closed here.

    Args:
        session: Opened inference session.
        source: Opened source of frames.
        sinks: Opened sinks. Each receives the verdicts in a thread of its own.
        size: Image size of the session.
        threshold: Decision threshold; a frame with a higher score is rejected. `line` may set another one later.
        policy: Name of the part, number of frames, and which frames get no verdict.
        stop: Event that ends the stream once it is set.
        line: Control by the line: pauses, thresholds, and the parts of a trigger.

    Returns:
        Counts and latencies of the stream.

    Raises:
        InputError: The line has a trigger, but the source is no camera.
        EdgeadError: The source or the inference failed, or a sink while the frames of a file were scored.
    """
    line = LineControl() if line is None else line
    survives, waits = source.live or source.endless, not source.live
    with Deliveries(sinks, waits=waits, survives=survives, stop=stop) as outputs:
        # Here, because an error closes the sinks, too.
        check = _frame_check(source, policy, line, outputs)
        # The first inference allocates memory, and on a GPU it may compile. It runs before the capture, so that it
        # delays no frame and counts in no latency.
        session.infer(np.zeros((1, size.height_px, size.width_px, 3), np.uint8))
        health = Health(source, outputs.counts, policy.sharpness, drift=policy.drift)
        parts = PartJudge(line.parts, outputs, source.uri, check.max_age_s) if line.parts and check else None
        run = _Run(session, outputs, size, threshold, policy.part, check, health, parts)
        start_s = time.monotonic()
        with Capture(source, None if parts is None else line.needs) as capture, suppress(StopStream):
            reason = "it was interrupted"
            try:
                reason = _judge(run, capture, line, policy.max_frames, stop)
            except Exception as error:
                reason = _end_of(error)
                raise
            finally:
                run.stop(line, reason)
                # A read that hangs and a sink that hangs share the time that the end may take.
                capture.stop()
                outputs.finish()
        with suppress(StopStream):
            outputs.check()
        dropped = capture.dropped + source.dropped
    return run.summary(dropped, source.broken, time.monotonic() - start_s)


def _frame_check(
    source: Source, policy: StreamPolicy, line: LineControl, outputs: Deliveries
) -> FrameCheck | None:
    """Make the check of the frames of a live source; None for others, which have no trigger."""
    if source.live:
        max_age_s = policy.max_age_of(source.fps, 1 if line.parts is None else line.parts.rule.frames)
        if line.parts is None and not source.by_signal:
            outputs.valid_s = max_age_s
        return FrameCheck(policy, max_age_s)
    if line.parts is not None:
        raise InputError(f"{source.uri} is no camera", hint="a trigger needs one, so leave the trigger out")
    return None


def _judge(
    run: _Run, capture: Capture, line: LineControl, max_frames: int | None, stop: threading.Event | None
) -> str:
    """Take frames and judge them until the end; return why it has come. See `stream`."""
    while run.judged != max_frames:
        if stop is not None and stop.is_set():
            return "it was stopped"
        run.check_sinks()
        frame, on_line = run.take(capture, line)
        taken_ns = time.monotonic_ns()
        if frame is None and capture.ended:
            return "the source has ended"
        problem = None if frame is None else run.problem(frame, taken_ns)
        run.update(frame, problem, on_line, capture.dropped, taken_ns / 1e9)
        problem = problem or (PAUSED if on_line is PAUSED else None)
        if frame is not None and problem is None:
            run.score(frame, taken_ns)
        elif frame is not None and problem is not None:
            run.withhold(frame, problem)
    return f"{max_frames} frames are judged"


def _end_of(error: Exception) -> str:
    """Return the reason for the end of a stream that an exception ends."""
    if isinstance(error, StopStream):
        return "a sink has ended it"
    # The text of another exception may have secrets.
    return str(error) if isinstance(error, EdgeadError) else type(error).__name__


class _Run:
    """Session, sinks and counters of one stream."""

    def __init__(
        self,
        session: Session,
        outputs: Deliveries,
        size: ModelSize,
        threshold: float,
        part: str | None,
        check: FrameCheck | None,
        health: Health,
        parts: PartJudge | None,
    ) -> None:
        self._session, self._outputs, self._size = session, outputs, size
        self._threshold, self._part, self._check = threshold, part, check
        self._health, self._service = health, Service()
        self._latencies, self._ages = LatencyHistogram(), LatencyHistogram()
        self._withheld, self._parts = Counter[Cause](), parts
        self._scored = self._rejected = self._idle = self.judged = 0
        self._report(health.change)

    def problem(self, frame: Frame, now_ns: int) -> Problem | None:
        """Return the reason why a frame must not be scored, or None."""
        return None if self._check is None else self._check.problem(frame, now_ns)

    def score(self, frame: Frame, taken_ns: int) -> None:
        """Score a frame, count it, and give its verdict, or the reason why it has none, to the sinks.

        With a trigger, only the frames of parts are scored, and the verdict is the part's.
        """
        if self._parts is not None and not self._parts.waits_for(frame):
            self._idle += 1
            return
        self.judged += 1
        batch = batch_from_images([frame.image], self._size)
        prediction = self._session.infer(batch)
        verdict = verdict_from_prediction(
            frame, prediction, self._threshold, self._part, taken_ns=taken_ns, live=self._check is not None
        )
        now_ns = time.monotonic_ns()
        if verdict is None:
            self.withhold(frame, Problem("not_finite", NOT_FINITE))
        elif self._check is not None and (late := self._check.late(frame, now_ns)) is not None:
            self.withhold(frame, late)
        else:
            if verdict.age_ms is not None:
                self._ages.add(verdict.age_ms)
            self._scored += 1
            self._rejected += verdict.is_anomalous
            if self._check is None or not self._check.is_still:
                self._health.judged(frame, batch[0], verdict)
            scored = Scored(frame, verdict, prediction.anomaly_map[0, 0])
            decided = scored if self._parts is None else self._parts.add(scored)
            if decided is not None:
                self._latencies.add(decided.verdict.latency_ms)
                self._outputs.verdict(*decided)

    def withhold(self, frame: Frame, problem: Problem) -> None:
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

    def take(self, capture: Capture, line: LineControl) -> tuple[Frame | None, Problem | None]:
        """Wait for the next frame, see `Capture.take`; return it and the problem of the whole stream."""
        if line.is_paused and self._check is None:
            # The frames of files wait.
            time.sleep(TICK_S)
            return None, PAUSED
        frame = capture.take(min(TICK_S, inf if self._parts is None else self._parts.settle(line.is_paused)))
        self._threshold = self._outputs.take_threshold(line, self._part, self._threshold)
        # A frame of a file that is in hand gets its verdict, also if a pause has come just now.
        return frame, None if self._check is None else line.problem()

    def check_sinks(self) -> None:
        """Raise the failure of a sink. See `Deliveries.check`."""
        self._outputs.check()

    def update(
        self,
        frame: Frame | None,
        problem: Problem | None,
        on_line: Problem | None,
        dropped: int,
        now_s: float,
    ) -> None:
        """Update the health of the stream, and end a verdict that has become too old. See `Health.update`."""
        self._service.beat(now_s)
        self._outputs.end_old_verdict(now_s)
        change = self._health.update(frame, problem, dropped, now_s, time.time(), on_line)
        if change is not None:
            self._report(change)

    def stop(self, line: LineControl, reason: str) -> None:
        """Take the last thresholds, withhold the parts that wait, and report the end of the stream, with its reason."""
        self._outputs.take_threshold(line, self._part, self._threshold)
        if self._parts is not None:
            self._parts.end()
        self._report(self._health.stop(reason, time.monotonic()))

    def _report(self, change: StateChange) -> None:
        """Give a change of the state to the sinks and to systemd."""
        self._service.state(change)
        self._outputs.state(change)

    def summary(self, dropped: int, broken: int, duration_s: float) -> Summary:
        """Return the counts, with the numbers of dropped frames and broken images, and the duration in seconds."""
        withheld = self._withheld.total()
        return Summary(
            frames_seen=self._scored + self._idle + dropped + withheld + broken,
            frames_scored=self._scored,
            frames_dropped=dropped,
            frames_withheld=withheld,
            frames_broken=broken,
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
            duration_s=duration_s,
            parts=None if self._parts is None else self._parts.count(),
            sinks=self._outputs.counts(),
        )
