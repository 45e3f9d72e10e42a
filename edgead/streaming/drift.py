"""Drift: scores and images that slowly become others than those of the build.

The bundle has the score, the brightness, the contrast and the sharpness of each good image of the build. For each of
these quantities there are four limits, which a tenth or a half of those images exceeds, upwards or downwards. The share
of all good parts that exceeds a limit is not known, but it has an upper bound: the share above the k-th largest of n
values has a beta distribution with the parameters k and n + 1 - k, whatever the values are distributed like. With the
confidence `CONFIDENCE`, all bounds hold.

While verdicts come, each limit is tested against its bound without an end. With theta_0 the bound and theta_1 a larger
share, the likelihood ratio of one verdict has a mean of 1 at most if the share is below the bound. So the statistic of
Shiryaev and Roberts, R = ratio * (R + 1), has grown by 1 a verdict at most on average, and so has the mean of the
statistics of all limits and of several theta_1. A false alarm at the value `FALSE_ALARM_EVERY` then comes after so many
verdicts or more on average (an e-detector: Shin, Ramdas and Rinaldo, New England Journal of Statistics in Data Science
2024), also if the quantities depend on one another.

Parts that were rejected for a score above all of the build do not count, because defects are no drift. Other rejects
do: a low threshold rejects good parts, too, and without them the scores would be lower than those of the build.
`RejectWatch` finds a line that rejects most of its parts.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgead.scoring.intervals import clopper_pearson
from edgead.streaming.freshness import Problem

FALSE_ALARM_EVERY = 10_000_000
CONFIDENCE = 0.99
LEAST_IMAGES = 10
# Shares of the images of the build beyond a limit. The first finds large shifts quickly, the second small ones.
BEYOND = (0.1, 0.5)
# Alternatives, as shares of the way from the bound to 1.
_ALTERNATIVES = (0.25, 0.5, 0.9)
_RECENT = 100
_WORDS = {
    "score": ("the scores are higher", "the scores are lower"),
    "brightness": ("the images are brighter", "the images are darker"),
    "contrast": ("the contrast is higher", "the contrast is lower"),
    "sharpness": ("the images are sharper", "the images are less sharp"),
}


class _Limit(NamedTuple):
    """One limit of a quantity."""

    quantity: str
    value: float
    is_upper: bool
    bound: float


class DriftWatch:
    """Watches whether scores and images of good parts are those of the build; may be read from any thread.

    The doubt ends when the statistic has fallen to the root of its value for an alarm, which takes one to three
    hundred good parts like those of the build.

    Args:
        reference: Values of the good images of the build by quantity: "score" and names of
            `edgead.imaging.image_statistics`. A quantity with fewer than `LEAST_IMAGES` values is not watched.
        false_alarm_every: Number of verdicts after which a false alarm comes on average, or later.
    """

    def __init__(
        self, reference: Mapping[str, Sequence[float]], false_alarm_every: int = FALSE_ALARM_EVERY
    ) -> None:
        self._reference = {
            name: np.sort(values) for name, values in reference.items() if len(values) >= LEAST_IMAGES
        }
        self._highest_score = max(self._reference.get("score", ()), default=-math.inf)
        self._limits = [limit for name in self._reference for limit in self._limits_of(name)]
        bounds = np.array([limit.bound for limit in self._limits]).reshape(-1, 1)
        others = bounds + (1.0 - bounds) * np.array(_ALTERNATIVES)
        # Ratio of the likelihoods of a value beyond the limit, and of one that is not; (limits, alternatives).
        self._beyond, self._within = others / bounds, (1.0 - others) / (1.0 - bounds)
        self._statistics = np.zeros_like(others)
        self._alarm_at = float(false_alarm_every)
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=_RECENT) for name in self._reference}
        self._problem: Problem | None = None
        self._lock = threading.Lock()

    def add(self, values: Mapping[str, float | None], *, rejected: bool = False) -> None:
        """Count a part, unless it was rejected for a score that no good part of the build has.

        Args:
            values: Its value of each quantity; None for an unknown one.
            rejected: Whether it was rejected.
        """
        score = values.get("score")
        if rejected and (score is None or score > self._highest_score):
            return
        with self._lock:
            for name, recent in self._recent.items():
                if (value := values[name]) is not None:
                    recent.append(value)
            for number, limit in enumerate(self._limits):
                if (value := values[limit.quantity]) is not None:
                    is_beyond = value > limit.value if limit.is_upper else value < limit.value
                    ratio = (self._beyond if is_beyond else self._within)[number]
                    self._statistics[number] = ratio * (self._statistics[number] + 1.0)
            self._decide()

    @property
    def problem(self) -> Problem | None:
        """The doubt, if there is one."""
        return self._problem

    def numbers(self) -> list[dict[str, Any]]:
        """Return for each quantity its median and tenths in the build, and the median of the last good parts."""
        with self._lock:
            recent = {name: list(values) for name, values in self._recent.items()}
        found = []
        for name, values in self._reference.items():
            low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
            found.append(
                {
                    "quantity": name,
                    "low": float(low),
                    "median": float(median),
                    "high": float(high),
                    "now": float(np.median(recent[name])) if recent[name] else None,
                }
            )
        return found

    def _limits_of(self, name: str) -> list[_Limit]:
        """Return the limits of a quantity with their bounds."""
        values, found = self._reference[name], []
        n, tail = len(values), (1.0 - CONFIDENCE) / (2 * len(BEYOND) * len(self._reference))
        for share in BEYOND:
            beyond = max(1, round(n * share))
            # The upper end of this interval is the quantile 1 - tail of the beta distribution (beyond, n + 1 - beyond).
            bound = clopper_pearson(beyond - 1, n, 1.0 - 2.0 * tail)[1]
            found.append(_Limit(name, float(values[n - beyond]), True, bound))
            found.append(_Limit(name, float(values[beyond - 1]), False, bound))
        return found

    def _decide(self) -> None:
        """Begin or end the doubt."""
        if not self._limits:
            return
        # No statistic needs to be larger than the one that alone gives an alarm.
        np.minimum(self._statistics, self._alarm_at * self._statistics.size, out=self._statistics)
        mean = float(self._statistics.mean())
        if self._problem is None and mean >= self._alarm_at:
            limit = self._limits[int(self._statistics.max(1).argmax())]
            word = _WORDS[limit.quantity][0 if limit.is_upper else 1]
            self._problem = Problem(
                "drift", f"{word} than those of the build: check light, lens, camera and parts"
            )
        elif self._problem is not None and mean < math.sqrt(self._alarm_at):
            self._problem = None
            self._statistics[:] = 0.0
