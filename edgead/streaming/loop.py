"""The stream: frames in, verdicts out, all day.

One thread captures, this one decides and feeds the sinks; see `edgead.streaming.capture` for which frames are
scored and `edgead.streaming.freshness` for which never are. Whatever goes wrong in either thread ends the stream
with that error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.runtime.base import Session
from edgead.streaming.capture import Capture
from edgead.streaming.freshness import Signal, SignalWatch
from edgead.streaming.latency import LatencyHistogram
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sources import Source
from edgead.streaming.verdict import verdict_from_prediction
from edgead.types import Frame

# How long a live source may give nothing new before the sinks learn of it.
NO_SIGNAL_AFTER_S = 3.0
# How long the loop waits for a frame before it looks whether it should stop and gives the sinks a turn.
TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """What a stream did; frames_seen = frames_scored + frames_dropped + frames_withheld.

    frames_dropped: replaced by a newer frame of a live source. frames_withheld: from a live source, and the
    same as the frame before or of one colour. rejected: scored above the threshold. signal_losses: times that
    no new image came. latency_*_ms: capture to decision, waiting included, within 1 %; None where nothing
    was scored. duration_s: from the first look at the source to the end.
    """

    frames_seen: int
    frames_scored: int
    frames_dropped: int
    frames_withheld: int
    rejected: int
    signal_losses: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    duration_s: float

    def text(self) -> str:
        """The summary as lines for a terminal."""
        rate = self.frames_scored / self.duration_s if self.duration_s > 0 else 0.0
        lines = [
            f"frames     {self.frames_seen} seen, {self.frames_scored} scored, "
            f"{self.frames_dropped} dropped, {self.frames_withheld} withheld",
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
    """Score the frames of a source until it ends, `stop` is set, a sink asks, or `max_frames` are scored.

    size: of the images that the session takes. threshold: a score above it is a reject. part: name of the part that
    it is of, for the verdicts. Source, session and sinks stay the caller's to close. Raises InputError for a limit out
    of range, SourceError, ImageError, SinkError or BackendError as they occur.
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max frames {max_frames} is no limit: give 1 or more, or leave it out")
    run = _Run(session, sinks, size, threshold, part)
    # The first inference allocates, on a GPU it may compile: not while parts go by, nor in the latencies.
    session.infer(np.zeros((1, size.height_px, size.width_px, 3), np.uint8))
    start_s = time.monotonic()
    watch = SignalWatch(NO_SIGNAL_AFTER_S, start_s) if source.live else None
    with Capture(source) as capture:
        try:
            while (stop is None or not stop.is_set()) and run.scored != max_frames:
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
    return run.summary(dropped, time.monotonic() - start_s)


class _Run:
    """Session and sinks of one stream, and what it counts."""

    def __init__(
        self, session: Session, sinks: Sequence[Sink], size: ModelSize, threshold: float, part: str | None
    ) -> None:
        self._session, self._sinks, self._size = session, sinks, size
        self._threshold, self._part = threshold, part
        self._latencies = LatencyHistogram()
        self.scored = 0
        self._withheld = self._rejected = self._signal_losses = 0

    def score(self, frame: Frame) -> None:
        prediction = self._session.infer(batch_from_images([frame.image], self._size))
        verdict = verdict_from_prediction(frame, prediction, self._threshold, self._part)
        self._latencies.add(verdict.latency_ms)
        self.scored += 1
        self._rejected += verdict.is_anomalous
        for sink in self._sinks:
            sink.write(frame, verdict, prediction.anomaly_map[0, 0])

    def skip(self, frame: Frame | None) -> None:
        self._withheld += frame is not None
        for sink in self._sinks:
            sink.tick()

    def report(self, signal: Signal | None) -> None:
        if signal is None:
            return
        self._signal_losses += not signal.present
        for sink in self._sinks:
            sink.signal(signal)

    def summary(self, dropped: int, duration_s: float) -> Summary:
        return Summary(
            frames_seen=self.scored + dropped + self._withheld,
            frames_scored=self.scored,
            frames_dropped=dropped,
            frames_withheld=self._withheld,
            rejected=self._rejected,
            signal_losses=self._signal_losses,
            latency_p50_ms=self._latencies.percentile(50),
            latency_p95_ms=self._latencies.percentile(95),
            latency_p99_ms=self._latencies.percentile(99),
            duration_s=duration_s,
        )
