"""Numbers for the page: state, counts, scores, latencies and ages, from the records of the stream."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink, SinkCount
from edgead.streaming.sinks.latest import LatestState

# Verdicts for rate, latency and age, and those of them that the chart shows.
_KEPT = 1000
CHART_VERDICTS = 300
# Time over which the rate is counted, and the time for a line with few verdicts.
_RATE_S = 10.0
_SLOW_RATE_S = 60.0
_FEW = 10


class _Point(NamedTuple):
    """Numbers of one verdict."""

    at_s: float
    frame_index: int
    score: float
    is_anomalous: bool
    latency_ms: float
    age_ms: float | None


class PageFeed(RecordSink):
    """The sink of the page that takes records; `numbers` may be called from any thread."""

    name = "page"
    takes_no_verdict = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest = LatestState()
        self._causes: list[str] = []
        self._points: deque[_Point] = deque(maxlen=_KEPT)
        self._started_at_s = self._state_at_s = time.monotonic()
        self._counts: Callable[[], Sequence[SinkCount]] = tuple

    def show_counts(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
        """Show the counts of all sinks. See `Sink.show_counts`."""
        self._counts = counts

    def record(self, record: Record) -> None:
        """Count an event. See `RecordSink.record`."""
        with self._lock:
            before = self._latest.state
            self._latest.take(record)
            if record["event"] == "verdict":
                self._points.append(
                    _Point(
                        time.monotonic(),
                        record["frame_index"],
                        record["anomaly_score"],
                        record["is_anomalous"],
                        record["latency_ms"],
                        record["age_ms"],
                    )
                )
            elif record["event"] == "state":
                self._causes = list(record["causes"])
                if record["state"] != before:
                    self._state_at_s = time.monotonic()

    def overview(self) -> dict[str, Any]:
        """Return state, counts and rate, and the latest verdict, with values that JSON can encode."""
        now_s = time.monotonic()
        with self._lock:
            latest, points = self._latest, list(self._points)
            verdict = latest.verdict
            return {
                "state": latest.state,
                "causes": self._causes,
                "reason": latest.state_reason,
                "state_s": now_s - self._state_at_s,
                "good": latest.good,
                "rejected": latest.rejected,
                "withheld": latest.withheld,
                # It ends with a later image that gets none.
                "no_verdict": None if verdict is not None else latest.reason,
                "rate": _rate(points, now_s, self._started_at_s),
                "verdict_s": now_s - points[-1].at_s if points else None,
                "is_anomalous": points[-1].is_anomalous if points else None,
            }

    def numbers(self) -> dict[str, Any]:
        """Return what the page shows, with values that JSON can encode."""
        numbers = self.overview()
        with self._lock:
            points = list(self._points)
        numbers["latency_ms"] = _percentiles([point.latency_ms for point in points])
        numbers["age_ms"] = _percentiles([point.age_ms for point in points if point.age_ms is not None])
        chart = points[-CHART_VERDICTS:]
        numbers["scores"] = [[point.frame_index, point.score, point.is_anomalous] for point in chart]
        numbers["sinks"] = [asdict(count) for count in self._counts()]
        return numbers


def _rate(points: Sequence[_Point], now_s: float, started_at_s: float) -> float:
    """Return the number of verdicts a second."""
    for window_s in (_RATE_S, _SLOW_RATE_S):
        since_s = min(window_s, max(now_s - started_at_s, 1.0))
        # Not one after another, because the page asks for many cameras at once.
        count = len(points) - bisect_left(points, now_s - since_s, key=lambda point: point.at_s)
        if count >= _FEW:
            break
    if count == len(points) == _KEPT:
        # The window holds more verdicts than are kept.
        since_s = now_s - points[0].at_s
    return count / since_s


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return median and 99th percentile; None without values."""
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}
