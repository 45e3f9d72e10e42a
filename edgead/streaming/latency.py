"""Percentiles of latencies over months in constant memory.

At 30 frames a second a month holds 80 million latencies. A histogram with buckets that grow by one per cent
keeps every percentile within one per cent of the exact one in 2000 counters, whatever the length of the run.
"""

from __future__ import annotations

import math

import numpy as np

GROWTH = 1.01
LOWEST_MS = 1e-3
HIGHEST_MS = 1e6

_LOG_GROWTH = math.log(GROWTH)
_BUCKETS = math.ceil(math.log(HIGHEST_MS / LOWEST_MS) / _LOG_GROWTH) + 1


class LatencyHistogram:
    """Counts of latencies in milliseconds; those outside 0.001 ms to 1000 s count at the nearer end."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        bucket = int(math.log(min(max(latency_ms, LOWEST_MS), HIGHEST_MS) / LOWEST_MS) / _LOG_GROWTH)
        self._counts[bucket] += 1

    def percentile(self, percent: float) -> float | None:
        """The nearest-rank percentile in ms, within 1 %; None when nothing was counted. percent: 0 to 100."""
        cumulative = self._counts.cumsum()
        total = int(cumulative[-1])
        if total == 0:
            return None
        rank = max(1, math.ceil(percent / 100 * total))
        bucket = int(np.searchsorted(cumulative, rank))
        # The geometric middle of the bucket, off by half a bucket at most.
        return LOWEST_MS * math.exp((bucket + 0.5) * _LOG_GROWTH)
