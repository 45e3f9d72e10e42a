"""Decision threshold from the scores of normal images alone.

A production line has hundreds of good parts and almost no defects. The user therefore gives a false-alarm rate ("1 good
part in 100"). The threshold is an order statistic of the held-out normal scores: a one-sided, distribution-free upper
tolerance bound (Wilks, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics
1941). With the given confidence over the random choice of those images, at most the given share of normal parts scores
above the threshold, for any distribution of scores. Every engine and precision gets its own threshold, from its own
scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgead.errors import InputError

# Beyond these limits no line has enough images, and float64 cannot represent every number of images.
SMALLEST_RATE = 1e-9
LARGEST_CONFIDENCE = 0.999999
LARGEST_COUNT = 10**12


@dataclass(frozen=True, slots=True)
class Threshold:
    """Decision threshold. A part is anomalous if its score is greater than `value`.

    Attributes:
        value: The threshold, a finite score.
        false_alarm_rate: Largest share of normal parts above the threshold, 0 to 1; None if the threshold was not set
            from a rate and promises none.
        confidence: Requested probability that the false-alarm rate is kept; None without a rate.
        achieved_confidence: Probability that the normal images achieve; None without a rate.
        n_normal: Number of normal images, 0 if the threshold was set without images.
        n_needed: Smallest number of normal images that achieves the requested confidence; None without a rate.

    Raises:
        InputError: A field is out of range, or only some of the fields of a rate are None.
    """

    value: float
    false_alarm_rate: float | None
    confidence: float | None
    achieved_confidence: float | None
    n_normal: int
    n_needed: int | None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"a threshold is a finite number, not {self.value}")
        of_rate = (self.false_alarm_rate, self.confidence, self.achieved_confidence, self.n_needed)
        if of_rate == (None, None, None, None):
            if not 0 <= self.n_normal <= LARGEST_COUNT:
                raise InputError(f"a count of normal images is from 0 to {LARGEST_COUNT}")
            return
        if (
            self.false_alarm_rate is None
            or self.confidence is None
            or self.achieved_confidence is None
            or self.n_needed is None
        ):
            raise InputError(
                "a threshold has all of false-alarm rate, confidence, achieved confidence and needed images, or none"
            )
        _check_rate(self.false_alarm_rate, self.confidence)
        if not 0.0 <= self.achieved_confidence <= 1.0:
            raise InputError(
                f"a threshold's achieved confidence is from 0 to 1, not {self.achieved_confidence}"
            )
        if not (1 <= self.n_normal <= LARGEST_COUNT and 1 <= self.n_needed <= LARGEST_COUNT):
            counts = ", ".join(str(count)[:20] for count in (self.n_normal, self.n_needed))
            raise InputError(f"counts of normal images are from 1 to {LARGEST_COUNT}, not {counts}")

    @property
    def set_by_highest(self) -> bool:
        """Whether the highest of the normal scores is the threshold, so one image alone set it."""
        if self.false_alarm_rate is None or self.confidence is None:
            return False
        above, _ = _images_above(self.n_normal, self.false_alarm_rate, self.confidence)
        return above == 0

    def warning(self) -> str | None:
        """Return a warning that there were too few normal images, with the number needed; None if there were enough."""
        if self.false_alarm_rate is None or self.confidence is None or self.achieved_confidence is None:
            return None
        if self.achieved_confidence >= self.confidence:
            return None
        promised = smallest_rate(self.n_normal, self.confidence)
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
    """Set the threshold to the smallest normal score that keeps the false-alarm rate.

    The threshold is the k-th smallest score, with the smallest k for which
    P(Binomial(N, 1 - false_alarm_rate) <= k - 1) >= confidence. If N is too small for any k, it is the largest score,
    and `Threshold.warning` reports it. The bound assumes that the scores are a random sample of the line's normal
    parts. Ties make it safer, never weaker.

    Args:
        scores: Scores (N,) of normal images on which the model was not trained, N >= 1, in any order.
        false_alarm_rate: Largest share of normal parts above the threshold, such as 0.01.
        confidence: Probability that the false-alarm rate is kept, such as 0.95.

    Returns:
        The threshold.

    Raises:
        InputError: There are no scores, a score is not finite, or the rate or confidence is out of range.
    """
    _check_rate(false_alarm_rate, confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    n = len(ordered)
    if n == 0:
        raise InputError(
            "there are no normal scores for a threshold", hint="hold out at least 1 normal image"
        )
    if not np.isfinite(ordered).all():
        bad = int(n - np.isfinite(ordered).sum())
        raise InputError(
            f"{bad} of {n} normal scores are not finite numbers, so the model is broken",
            hint="train or build again",
        )
    above, achieved = _images_above(n, false_alarm_rate, confidence)
    return Threshold(
        value=float(ordered[n - 1 - above]),
        false_alarm_rate=float(false_alarm_rate),
        confidence=float(confidence),
        achieved_confidence=achieved,
        n_normal=n,
        n_needed=images_needed(false_alarm_rate, confidence),
    )


def check_value(value: float) -> float:
    """Check a threshold that a user typed.

    Args:
        value: The threshold.

    Returns:
        The same value.

    Raises:
        InputError: It is not a finite number above 0.
    """
    # NaN fails this comparison too, and no score is above infinity.
    if not 0.0 < value < math.inf:
        raise InputError(f"the threshold is {value}", hint="give a finite number above 0")
    return value


def images_needed(false_alarm_rate: float, confidence: float = 0.95, above: int = 0) -> int:
    """Compute how many normal images a threshold for a rate needs, if some of their scores may lie above it.

    Args:
        false_alarm_rate: Largest share of normal parts above the threshold, such as 0.01.
        confidence: Probability that the false-alarm rate is kept, such as 0.95.
        above: Number of images whose scores may lie above the threshold; 0 makes the highest score the threshold.

    Returns:
        The smallest n with P(Binomial(n, rate) > above) >= confidence, 1 or more.

    Raises:
        InputError: The rate or the confidence is out of range.

    Example:
        >>> images_needed(0.01), images_needed(0.1), images_needed(0.1, above=2)
        (299, 29, 61)
    """
    _check_rate(false_alarm_rate, confidence)
    few, many = above, above + 1
    while not _keeps_rate(many, above, false_alarm_rate, confidence):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        if _keeps_rate(middle, above, false_alarm_rate, confidence):
            many = middle
        else:
            few = middle
    return many


def check_rate(false_alarm_rate: float) -> None:
    """Check a false-alarm rate.

    Args:
        false_alarm_rate: Largest share of normal parts above the threshold.

    Raises:
        InputError: The rate is out of range.
    """
    _check_rate(false_alarm_rate, 0.95)


def smallest_rate(n: int, confidence: float = 0.95) -> float:
    """Compute the smallest false-alarm rate that the highest of n normal scores keeps: 1 - (1 - rate)^n = confidence.

    Args:
        n: Number of normal images, 1 or more.
        confidence: Probability that the rate is kept.

    Returns:
        The rate, 0 to 1.

    Example:
        >>> round(smallest_rate(9, 0.95), 3)
        0.283
    """
    return -math.expm1(math.log1p(-confidence) / n)


def _check_rate(false_alarm_rate: float, confidence: float) -> None:
    """Raise InputError if the rate or the confidence is out of range."""
    if not SMALLEST_RATE <= false_alarm_rate < 1.0:
        raise InputError(
            f"the false-alarm rate is {false_alarm_rate}",
            hint=f"give {SMALLEST_RATE} to below 1, such as 0.01 for 1 part in 100",
        )
    if not 0.0 < confidence <= LARGEST_CONFIDENCE:
        raise InputError(
            f"the confidence is {confidence}",
            hint=f"give a number above 0 and at most {LARGEST_CONFIDENCE}, such as 0.95",
        )


def _images_above(n: int, rate: float, confidence: float) -> tuple[int, float]:
    """Compute how many of n normal scores may lie above the threshold, and the achieved confidence.

    With m = n - k scores above the threshold, P(Binomial(n, 1 - rate) <= k - 1) = 1 - P(Binomial(n, rate) <= m). The
    loop searches upwards from 0 for the largest m that keeps the confidence. It ends near n * rate.
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


def _keeps_rate(n: int, above: int, rate: float, confidence: float) -> bool:
    """Return whether the threshold of n normal scores keeps the rate with `above` of them above it."""
    most, achieved = _images_above(n, rate, confidence)
    return achieved >= confidence and most >= above


def _confidence_of_maximum(n: int, rate: float) -> float:
    """Probability that at most `rate` of all normal parts score above the largest of n scores."""
    return -math.expm1(n * math.log1p(-rate))
