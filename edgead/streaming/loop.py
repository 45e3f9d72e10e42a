"""The loop of a stream: it takes frames from a source, scores them, and gives the verdicts to the sinks.

One thread captures frames; the calling thread scores them and feeds the sinks. `edgead.streaming.capture` describes
which frames are dropped, and `edgead.streaming.freshness` which frames are withheld. An error in either thread ends the
stream with that error. A frame with an anomaly map or a score that is not finite gets no verdict: it is withheld,
counted and given to the sinks with the reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.bundle.manifest import REBUILD
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime.base import Session
from edgead.scoring.decision import NOT_FINITE
from edgead.streaming.capture import Capture
from edgead.streaming.freshness import Signal, SignalWatch
from edgead.streaming.latency import LatencyHistogram
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sources import Source
from edgead.streaming.verdict import verdict_from_prediction
from edgead.types import Frame

# Time without a new image from a live source after which the sinks receive the loss of the signal.
NO_SIGNAL_AFTER_S = 3.0
# Longest wait for a frame before the loop checks whether it should stop, and calls `tick` of the sinks.
TICK_S = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts and latencies of a stream.

    Latencies are the time from capture to decision, waiting included, within 1 %; None if no frame was scored.

    Attributes:
        frames_seen: Number of all frames: frames_scored + frames_dropped + frames_withheld + frames_broken.
        frames_scored: Number of frames with a verdict.
        frames_dropped: Number of frames of a live source that a newer frame replaced.
        frames_withheld: Number of frames without a verdict: frames of a live source that were the same as the frame
            before or had one colour, and frames with an anomaly map or a score that is not finite.
        frames_broken: Number of images that were left out because they are truncated or damaged.
        rejected: Number of frames that scored above the threshold.
        signal_losses: Number of times that the signal was lost.
        latency_p50_ms: Median latency in milliseconds.
        latency_p95_ms: 95th percentile of the latency in milliseconds.
        latency_p99_ms: 99th percentile of the latency in milliseconds.
        duration_s: Time from the start of capture to the end, in seconds.
    """

    frames_seen: int
    frames_scored: int
    frames_dropped: int
    frames_withheld: int
    frames_broken: int
    rejected: int
    signal_losses: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    duration_s: float

    def text(self) -> str:
        """Return the summary as lines for a terminal."""
        rate = self.frames_scored / self.duration_s if self.duration_s > 0 else 0.0
        lines = [
            f"frames     {self.frames_seen} seen, {self.frames_scored} scored, "
            f"{self.frames_dropped} dropped, {self.frames_withheld} withheld, "
            f"{self.frames_broken} broken",
            f"rejected   {self.rejected}",
            f"duration   {self.duration_s:.1f} s, {rate:.1f} scored a second, "
            f"signal lost {self.signal_losses} times",
        ]
        if self.latency_p50_ms is not None:
            lines.append(
                f"latency    p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f} ms, "
                f"p99 {self.latency_p99_ms:.1f} ms, capture to decision"
            )
        return "\n".join(lines)


def stream(
    session: Session,
    source: Source,
    sinks: Sequence[Sink],
    *,
    size: ModelSize,
    threshold: float,
    part: str | None = None,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Score the frames of a source until it ends, `stop` is set, a sink stops it, or `max_frames` are judged.

    The caller closes the session, the source and the sinks.

    Args:
        session: Opened inference session.
        source: Opened source of frames.
        sinks: Opened sinks, which receive the verdicts in this order.
        size: Image size of the session.
        threshold: Decision threshold; a frame with a higher score is rejected.
        part: Name of the part that the threshold belongs to, for the verdicts.
        max_frames: Number of frames to judge, with a verdict or without, 1 or more; None for no limit.
        stop: Event that ends the stream once it is set.

    Returns:
        Counts and latencies of the stream.

    Raises:
        InputError: `max_frames` is below 1.
        SourceError: The source failed.
        ImageError: An image file of the source cannot be read.
        SinkError: A sink failed.
        BackendError: The inference failed.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames is {max_frames}", hint="give 1 or more, or leave it out")
    run = _Run(session, sinks, size, threshold, part)
    # The first inference allocates memory, and on a GPU it may compile. It runs before the capture, so that it delays
    # no frame and counts in no latency.
    session.infer(np.zeros((1, size.height_px, size.width_px, 3), np.uint8))
    start_s = time.monotonic()
    watch = SignalWatch(_silence_s(source), start_s) if source.live else None
    with Capture(source) as capture:
        try:
            while (stop is None or not stop.is_set()) and run.judged != max_frames:
                frame = capture.take(TICK_S)
                if frame is None and capture.ended:
                    break
                new = frame is not None and (watch is None or watch.is_new(frame))
                if watch is not None:
                    run.report(watch.change(new, time.monotonic()))
                if frame is not None and new:
                    run.score(frame)
                else:
                    run.skip(frame)
        except StopStream:
            pass
        dropped = capture.dropped
    return run.summary(dropped, source.broken, time.monotonic() - start_s)


def _silence_s(source: Source) -> float:
    """Return the time in seconds without a new image after which a camera counts as lost: a slow one has two images."""
    return max(NO_SIGNAL_AFTER_S, 2.0 / source.fps if source.fps else 0.0)


class _Run:
    """Session, sinks and counters of one stream."""

    def __init__(
        self, session: Session, sinks: Sequence[Sink], size: ModelSize, threshold: float, part: str | None
    ) -> None:
        self._session, self._sinks, self._size = session, sinks, size
        self._threshold, self._part = threshold, part
        self._latencies = LatencyHistogram()
        self.scored = 0
        self._withheld = self._rejected = self._signal_losses = 0
        self._not_finite = 0

    @property
    def judged(self) -> int:
        """Number of frames that went through the model."""
        return self.scored + self._not_finite

    def score(self, frame: Frame) -> None:
        """Score a frame, count it, and give its verdict, or the reason why it has none, to the sinks."""
        prediction = self._session.infer(batch_from_images([frame.image], self._size))
        verdict = verdict_from_prediction(frame, prediction, self._threshold, self._part)
        if verdict is None:
            self._withhold(frame)
            return
        self._latencies.add(verdict.latency_ms)
        self.scored += 1
        self._rejected += verdict.is_anomalous
        for sink in self._sinks:
            sink.write(frame, verdict, prediction.anomaly_map[0, 0])

    def _withhold(self, frame: Frame) -> None:
        """Count a frame without a verdict and tell the sinks; only the first one is logged, because many may follow."""
        if not self._not_finite:
            _log.warning(
                "%s: frame %d gets no verdict: %s: %s", frame.source, frame.index, NOT_FINITE, REBUILD
            )
        self._not_finite += 1
        self._withheld += 1
        for sink in self._sinks:
            sink.withheld(frame, NOT_FINITE)

    def skip(self, frame: Frame | None) -> None:
        """Count a withheld frame, if there is one, and call `tick` of the sinks."""
        self._withheld += frame is not None
        for sink in self._sinks:
            sink.tick()

    def report(self, signal: Signal | None) -> None:
        """Count a loss of the signal, and give a change of the signal to the sinks."""
        if signal is None:
            return
        self._signal_losses += not signal.present
        for sink in self._sinks:
            sink.signal(signal)

    def summary(self, dropped: int, broken: int, duration_s: float) -> Summary:
        """Return the counts, with the numbers of dropped frames and broken images, and the duration in seconds."""
        return Summary(
            frames_seen=self.scored + dropped + self._withheld + broken,
            frames_scored=self.scored,
            frames_dropped=dropped,
            frames_withheld=self._withheld,
            frames_broken=broken,
            rejected=self._rejected,
            signal_losses=self._signal_losses,
            latency_p50_ms=self._latencies.percentile(50),
            latency_p95_ms=self._latencies.percentile(95),
            latency_p99_ms=self._latencies.percentile(99),
            duration_s=duration_s,
        )
