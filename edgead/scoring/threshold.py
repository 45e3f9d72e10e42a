"""A decision threshold from the scores of normal images alone.

A line has hundreds of good parts and almost no defects, so the user gives what they can judge: a false-alarm
budget ("1 good part in 100"). The threshold is an order statistic of the held-out normal scores: a one-sided,
distribution-free upper tolerance bound (Wilks, "Determination of sample sizes for setting tolerance limits",
Annals of Mathematical Statistics 1941). With the stated confidence over the draw of those images, at most
the budgeted share of normal parts scores above it, whatever the distribution of scores. It is set again for
every engine and precision, from that engine's own scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgead.errors import InputError

# Beyond these no line has images enough, and float64 no longer tells one number of images from the next.
SMALLEST_RATE = 1e-9
LARGEST_CONFIDENCE = 0.999999


@dataclass(frozen=True, slots=True)
class Threshold:
    """A part is anomalous when its score is greater than `value`; the rest says how far to trust that.

    false_alarm_rate: share of normal parts allowed above the threshold, 0 to 1. confidence: wanted
    probability that the budget is kept. achieved_confidence: what these images give. n_normal: number of
    normal images used. n_needed: number from which on the wanted confidence can be reached. Raises
    InputError when a field is out of range.
    """

    value: float
    false_alarm_rate: float
    confidence: float
    achieved_confidence: float
    n_normal: int
    n_needed: int

    def __post_init__(self) -> None:
        _check_rate(self.false_alarm_rate, self.confidence)
        if not math.isfinite(self.value):
            raise InputError(f"a threshold is a finite number, not {self.value}")
        if not 0.0 <= self.achieved_confidence <= 1.0:
            raise InputError(
                f"a threshold's achieved confidence is from 0 to 1, not {self.achieved_confidence}"
            )
        if self.n_normal < 1 or self.n_needed < 1:
            raise InputError(
                f"counts of normal images are at least 1, not {self.n_normal} (needed: {self.n_needed})"
            )

    def warning(self) -> str | None:
        """Say that there were too few normal images and how many would be enough; None otherwise."""
        if self.achieved_confidence >= self.confidence:
            return None
        # What these images do promise with the wanted confidence: solve 1 - (1 - rate)^n = confidence for
        # the rate.
        promised = -math.expm1(math.log1p(-self.confidence) / self.n_normal)
        images = "1 normal image" if self.n_normal == 1 else f"{self.n_normal} normal images"
        return (
            f"threshold from {images}, too few for a false-alarm rate of {self.false_alarm_rate:.4g} "
            f"at confidence {self.confidence:.4g} (achieved {self.achieved_confidence:.2g}): expect a rate up to "
            f"{promised:.2g}; {self.n_needed} images would be enough"
        )


def threshold_from_normal_scores(
    scores: Sequence[float] | npt.NDArray[np.floating],
    false_alarm_rate: float = 0.01,
    confidence: float = 0.95,
) -> Threshold:
    """Set the threshold at the smallest normal score that keeps the false-alarm budget.

    scores: (N,) of normal images the model was not trained on, N >= 1, any order. The threshold is the k-th
    smallest score with the smallest k for which P(Binomial(N, 1 - false_alarm_rate) <= k - 1) >= confidence;
    where N is too small for any k it is the largest score, and `Threshold.warning` says so. Assumes that the
    scores are a fair sample of the line's normal parts; ties make the bound safer, never weaker.

    Raises InputError for no scores, a score that is not finite, or a rate or confidence out of range.
    """
    _check_rate(false_alarm_rate, confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    n = len(ordered)
    if n == 0:
        raise InputError("no normal scores to set a threshold from: hold out at least 1 normal image")
    if not np.isfinite(ordered).all():
        bad = int(n - np.isfinite(ordered).sum())
        raise InputError(
            f"{bad} of {n} normal scores are not finite numbers: the model is broken, train or build again"
        )
    above, achieved = _images_above(n, false_alarm_rate, confidence)
    return Threshold(
        value=float(ordered[n - 1 - above]),
        false_alarm_rate=float(false_alarm_rate),
        confidence=float(confidence),
        achieved_confidence=achieved,
        n_normal=n,
        n_needed=_images_needed(false_alarm_rate, confidence),
    )


def _check_rate(false_alarm_rate: float, confidence: float) -> None:
    if not SMALLEST_RATE <= false_alarm_rate < 1.0:
        raise InputError(
            f"a false-alarm rate is from {SMALLEST_RATE} to below 1, such as 0.01 for 1 part in 100, "
            f"not {false_alarm_rate}"
        )
    if not 0.0 < confidence <= LARGEST_CONFIDENCE:
        raise InputError(
            f"a confidence is above 0 and at most {LARGEST_CONFIDENCE}, such as 0.95, not {confidence}"
        )


def _images_above(n: int, rate: float, confidence: float) -> tuple[int, float]:
    """Give how many of n normal scores may lie above the threshold, and the confidence reached.

    With m = n - k scores above it, P(Binomial(n, 1 - rate) <= k - 1) = 1 - P(Binomial(n, rate) <= m), so the
    largest m whose lower tail leaves the confidence is sought from 0 upwards; it ends below n * rate or a
    little past it.
    """
    above, achieved = 0, _confidence_of_maximum(n, rate)
    tail = 1.0 - achieved
    for m in range(1, n):
        log_mass = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
        tail += math.exp(log_mass + m * math.log(rate) + (n - m) * math.log1p(-rate))
        if 1.0 - tail < confidence:
            break
        above, achieved = m, 1.0 - tail
    return above, achieved


def _images_needed(rate: float, confidence: float) -> int:
    """Give the smallest n with 1 - (1 - rate)^n >= confidence."""
    n = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-rate)))
    # The quotient may round to either side of a whole number; the test that `_images_above` makes decides.
    while n > 1 and _confidence_of_maximum(n - 1, rate) >= confidence:
        n -= 1
    while _confidence_of_maximum(n, rate) < confidence:
        n += 1
    return n


def _confidence_of_maximum(n: int, rate: float) -> float:
    """Give the probability that at most `rate` of all normal parts lie above the largest of n scores."""
    return -math.expm1(n * math.log1p(-rate))
