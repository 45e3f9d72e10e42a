"""Percentiles of latencies over months in constant memory.

At 30 frames per second a month has 80 million latencies. A histogram of about 2000 buckets, each one per cent wider
than the one before, gives every percentile within one per cent of the exact value, however long the stream runs.
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
    """Histogram of latencies in milliseconds; a latency outside 0.001 ms to 1000 s counts at the nearer end."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        bucket = int(math.log(min(max(latency_ms, LOWEST_MS), HIGHEST_MS) / LOWEST_MS) / _LOG_GROWTH)
        self._counts[bucket] += 1

    def percentile(self, percent: float) -> float | None:
        """Estimate a percentile by nearest rank.

        Args:
            percent: Percentage, 0 to 100.

        Returns:
            The percentile in milliseconds, within 1 % of the exact value; None if nothing was counted.
        """
        cumulative = self._counts.cumsum()
        total = int(cumulative[-1])
        if total == 0:
            return None
        rank = max(1, math.ceil(percent / 100 * total))
        bucket = int(np.searchsorted(cumulative, rank))
        # The geometric centre of the bucket, at most half a bucket from the exact value.
        return LOWEST_MS * math.exp((bucket + 0.5) * _LOG_GROWTH)
