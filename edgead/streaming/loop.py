"""The loop of a stream: it takes frames from a source, scores them, and gives the verdicts to the sinks.

One thread captures frames, the calling thread scores them, and each sink has a thread of its own.
`edgead.streaming.capture` describes which frames are dropped, `edgead.streaming.freshness` which frames are withheld,
and `edgead.streaming.delivery` what a slow or failed sink loses. An error of the source or of the model ends the
stream. A failure of a sink ends the stream of a file, which can be streamed again; a camera goes on. A frame that is
too old, before the model or after it, or has an anomaly map or a score that is not finite gets no verdict: it is
withheld, counted and given to the sinks with the reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from edgead.bundle.manifest import REBUILD
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime.base import Session
from edgead.scoring.decision import NOT_FINITE
from edgead.streaming.capture import Capture
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.freshness import Cause, FrameCheck, Problem, Signal, SignalWatch
from edgead.streaming.latency import LatencyHistogram
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sources import Source
from edgead.streaming.summary import Summary
from edgead.streaming.verdict import verdict_from_prediction
from edgead.types import Frame

# Time without a new image from a live source after which the sinks receive the loss of the signal.
NO_SIGNAL_AFTER_S = 3.0
# Longest wait for a frame before the loop checks whether it should stop.
TICK_S = 0.1
# Time without a new image in a watched folder after which the sinks learn that none comes.
NO_NEW_FILE_AFTER_S = 60.0
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
    part: str | None = None,
    policy: StreamPolicy = _DEFAULTS,
    stop: threading.Event | None = None,
) -> Summary:
    """Score the frames of a source until it ends, `stop` is set, a sink stops it, or `policy.max_frames` are judged.

    The caller closes the session and the source. The sinks are closed here, each by its own thread. After `stop` a
    sink that does not answer is left to the end of the process.

    Args:
        session: Opened inference session.
        source: Opened source of frames.
        sinks: Opened sinks. Each receives the verdicts in a thread of its own.
        size: Image size of the session.
        threshold: Decision threshold; a frame with a higher score is rejected.
        part: Name of the part that the threshold belongs to, for the verdicts.
        policy: Number of frames, and which frames get no verdict.
        stop: Event that ends the stream once it is set.

    Returns:
        Counts and latencies of the stream.

    Raises:
        SourceError: The source failed.
        ImageError: An image file of the source cannot be read.
        EdgeadError: A sink failed while the frames of a file were scored.
        BackendError: The inference failed.
    """
    check = FrameCheck(policy, policy.max_age_of(source.fps)) if source.live else None
    survives = source.live or source.endless
    with Deliveries(sinks, waits=not source.live, survives=survives, stop=stop) as outputs:
        run = _Run(session, outputs, size, threshold, part, check)
        # The first inference allocates memory, and on a GPU it may compile. It runs before the capture, so that it
        # delays no frame and counts in no latency.
        session.infer(np.zeros((1, size.height_px, size.width_px, 3), np.uint8))
        start_s = time.monotonic()
        with Capture(source) as capture, suppress(StopStream):
            try:
                _judge(run, source, capture, policy.max_frames, stop)
            finally:
                # A read that hangs and a sink that hangs share the time that the end may take.
                capture.stop()
                outputs.finish()
        with suppress(StopStream):
            outputs.check()
        dropped = capture.dropped + source.dropped
    return run.summary(dropped, source.broken, time.monotonic() - start_s)


def _judge(
    run: _Run, source: Source, capture: Capture, max_frames: int | None, stop: threading.Event | None
) -> None:
    """Take frames and judge them until the end. See `stream`."""
    watch = _signal_watch(source)
    while (stop is None or not stop.is_set()) and run.judged != max_frames:
        run.check_sinks()
        frame = capture.take(TICK_S)
        taken_ns = time.monotonic_ns()
        if frame is None and capture.ended:
            break
        problem = None if frame is None else run.problem(frame, taken_ns)
        if watch is not None:
            new = frame is not None and problem is None
            run.report(watch.change(problem, new, taken_ns / 1e9, source.trouble))
        if frame is not None and problem is None:
            run.score(frame, taken_ns)
        elif frame is not None and problem is not None:
            run.withhold(frame, problem)


def _signal_watch(source: Source) -> SignalWatch | None:
    """Make the watch of a source that never ends by itself; None for others."""
    now_s = time.monotonic()
    if source.live:
        # A slow camera has two images in this time.
        silence_s = max(NO_SIGNAL_AFTER_S, 2.0 / source.fps if source.fps else 0.0)
        return SignalWatch(silence_s, now_s)
    if source.endless:
        return SignalWatch(
            NO_NEW_FILE_AFTER_S, now_s, trouble_after_s=NO_SIGNAL_AFTER_S, no_image="no new image comes"
        )
    return None


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
    ) -> None:
        self._session, self._outputs, self._size = session, outputs, size
        self._threshold, self._part, self._check = threshold, part, check
        self._latencies, self._ages = LatencyHistogram(), LatencyHistogram()
        self._withheld: Counter[Cause] = Counter()
        self._scored = self._rejected = self._signal_losses = 0
        self._has_signal = True
        self.judged = 0

    def problem(self, frame: Frame, now_ns: int) -> Problem | None:
        """Return the reason why a frame must not be scored, or None."""
        return None if self._check is None else self._check.problem(frame, now_ns)

    def score(self, frame: Frame, taken_ns: int) -> None:
        """Score a frame, count it, and give its verdict, or the reason why it has none, to the sinks."""
        self.judged += 1
        prediction = self._session.infer(batch_from_images([frame.image], self._size))
        verdict = verdict_from_prediction(
            frame, prediction, self._threshold, self._part, taken_ns=taken_ns, live=self._check is not None
        )
        now_ns = time.monotonic_ns()
        if verdict is None:
            self.withhold(frame, Problem("not_finite", NOT_FINITE))
        elif self._check is not None and (late := self._check.late(frame, now_ns)) is not None:
            self.withhold(frame, late)
        else:
            self._latencies.add(verdict.latency_ms)
            if verdict.age_ms is not None:
                self._ages.add(verdict.age_ms)
            self._scored += 1
            self._rejected += verdict.is_anomalous
            self._outputs.verdict(frame, verdict, prediction.anomaly_map[0, 0])

    def withhold(self, frame: Frame, problem: Problem) -> None:
        """Count a frame without a verdict, and give it to the sinks if it is a single one.

        Only the first of each cause is logged, because many may follow.
        """
        if problem.cause in _LOGGED and not self._withheld[problem.cause]:
            hint = f": {REBUILD}" if problem.cause == "not_finite" else ""
            _log.warning(
                "%s: frame %d gets no verdict: %s%s", frame.source, frame.index, problem.reason, hint
            )
        self._withheld[problem.cause] += 1
        if problem.cause in _SINGLE:
            self._outputs.withheld(frame, problem.reason)

    def check_sinks(self) -> None:
        """Raise the failure of a sink. See `Deliveries.check`."""
        self._outputs.check()

    def report(self, signal: Signal | None) -> None:
        """Count a loss of the signal, and give a change of the signal to the sinks."""
        if signal is None:
            return
        self._signal_losses += self._has_signal and not signal.present
        self._has_signal = signal.present
        self._outputs.signal(signal)

    def summary(self, dropped: int, broken: int, duration_s: float) -> Summary:
        """Return the counts, with the numbers of dropped frames and broken images, and the duration in seconds."""
        withheld = self._withheld.total()
        return Summary(
            frames_seen=self._scored + dropped + withheld + broken,
            frames_scored=self._scored,
            frames_dropped=dropped,
            frames_withheld=withheld,
            frames_broken=broken,
            withheld={cause: self._withheld[cause] for cause in sorted(self._withheld)},
            rejected=self._rejected,
            signal_losses=self._signal_losses,
            latency_p50_ms=self._latencies.percentile(50),
            latency_p95_ms=self._latencies.percentile(95),
            latency_p99_ms=self._latencies.percentile(99),
            age_p50_ms=self._ages.percentile(50),
            age_p95_ms=self._ages.percentile(95),
            age_p99_ms=self._ages.percentile(99),
            duration_s=duration_s,
            sinks=self._outputs.counts(),
        )
