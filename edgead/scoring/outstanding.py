"""Good images that alone set a threshold: the highest scores, if they stand out from all others.

A threshold that is the highest of few scores is the score of one image. If a defective part was sorted among the good
ones, it sets the threshold, and all defects below it are missed. So the image is named, for a person to look at.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgead.scoring.intervals import upper_limit
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores

_log = logging.getLogger(__name__)

STANDS_OUT = 1.2
"""Scores stand out if they are this many times the next one or more. benchmarks/results/update.md compares factors."""

MOST = 3
"""Largest number of images that may stand out together."""

FEWEST = 20
"""Among fewer images a gap means nothing."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """Good images whose scores stand out and set a threshold.

    Attributes:
        names: Their names, the highest score first.
        without: Threshold for the same false-alarm rate without them.
        rate: False-alarm rate whose threshold does not depend on them, rounded up to two digits.
    """

    names: tuple[str, ...]
    without: float
    rate: float


def outstanding(threshold: Threshold, scores: Mapping[str, float]) -> Outstanding | None:
    """Find the good images that alone set a threshold.

    Args:
        threshold: Threshold that was set from the scores for a false-alarm rate.
        scores: Scores of good images by name.

    Returns:
        The images; None if no scores stand out, or if the threshold does not depend on those that do.
    """
    if threshold.false_alarm_rate is None or threshold.confidence is None or len(scores) < FEWEST:
        return None
    names = sorted(scores, key=lambda name: scores[name], reverse=True)
    for count in range(MOST, 0, -1):
        last, following = scores[names[count - 1]], scores[names[count]]
        if following < last <= threshold.value and last >= STANDS_OUT * following:
            others = [scores[name] for name in names[count:]]
            without = threshold_from_normal_scores(others, threshold.false_alarm_rate, threshold.confidence)
            rate = upper_limit(count, len(names), threshold.confidence)
            return Outstanding(tuple(names[:count]), without.value, _rounded_up(rate))
    return None


def log_outstanding(threshold: Threshold, scores: Mapping[str, float], part: str, again: str) -> None:
    """Name the good images that alone set a threshold.

    Args:
        threshold: Threshold that was set from the scores for a false-alarm rate.
        scores: Scores of good images by name, at least one.
        part: Name of the part.
        again: What to do after an image was removed, such as "train again".
    """
    found = outstanding(threshold, scores)
    if found is not None:
        _log.warning(
            "%s: the threshold is %.4g, and %.4g without %s, which stand%s out: look for a defect. Remove an image "
            "that shows one, and %s. A --false-alarm-rate of %.2g or more ignores the highest scores",
            part,
            threshold.value,
            found.without,
            " and ".join(found.names),
            "s" if len(found.names) == 1 else "",
            again,
            found.rate,
        )
    elif threshold.set_by_highest:
        highest = max(scores, key=lambda name: scores[name])
        _log.info(
            "%s: %s has the highest score of %d good images, which is the threshold",
            part,
            highest,
            len(scores),
        )


def _rounded_up(rate: float) -> float:
    """Round a rate up to two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.ceil(rate / unit) * unit
