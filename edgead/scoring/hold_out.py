"""How many good images a training holds out for the threshold.

A tenth of few images is too few: the highest of 9 held-out scores supports a false-alarm rate of 0.28 only. So the
default holds out as many images as the rate needs, but at most a third, because the student learns from the others.
Where it can, it holds out enough to leave out the two highest scores, because one unusual part would otherwise decide
which defects are found. benchmarks/results/hold_out.md compares the rules.
"""

from __future__ import annotations

import math

from edgead.errors import InputError
from edgead.scoring.threshold import images_needed

AUTO = "auto"
"""The hold-out that depends on the false-alarm rate."""

SMALLEST_SHARE = 1 / 10
LARGEST_SHARE = 1 / 3

UNUSUAL_IMAGES = 2
"""Number of held-out images whose scores may lie above the threshold, if there are images enough."""

_MOST_DIGITS = 18


def hold_out_count(n: int, hold_out: str, false_alarm_rate: float) -> int:
    """Compute how many of n good images a training holds out for the threshold.

    Args:
        n: Number of good images.
        hold_out: Number of images such as "30", share such as "0.3", or "auto": the number with which the false-alarm
            rate is kept at confidence 0.95 by the third-highest score, at least a tenth and at most a third of the
            images.
        false_alarm_rate: Largest share of good parts above the threshold.

    Returns:
        Number of images, 1 or more. `n` may be too few for it.

    Raises:
        InputError: The hold-out is another text, or the rate is out of range.

    Example:
        >>> hold_out_count(90, "auto", 0.01), hold_out_count(90, "auto", 0.2), hold_out_count(2000, "auto", 0.01)
        (30, 30, 628)
    """
    if hold_out == AUTO:
        wanted = max(round(SMALLEST_SHARE * n), images_needed(false_alarm_rate, above=UNUSUAL_IMAGES))
        return max(1, min(wanted, round(LARGEST_SHARE * n)))
    # Python refuses to convert numbers of thousands of digits.
    if hold_out.isdecimal() and len(hold_out) <= _MOST_DIGITS and (count := int(hold_out)) >= 1:
        return count
    return max(1, round(_share(hold_out) * n))


def enough_images(hold_out: str, false_alarm_rate: float) -> int | None:
    """Compute how many good images in all hold out as many as a false-alarm rate needs at confidence 0.95.

    Args:
        hold_out: Number, share or "auto", see `hold_out_count`.
        false_alarm_rate: Largest share of good parts above the threshold.

    Returns:
        Number of images; None if the hold-out is a number, because it does not grow with the images.

    Raises:
        InputError: The hold-out is another text, or the rate is out of range.

    Example:
        >>> enough_images("auto", 0.01), enough_images("0.1", 0.01)
        (897, 2990)
    """
    needed = images_needed(false_alarm_rate)
    if hold_out.isdecimal():
        return None
    share = LARGEST_SHARE if hold_out == AUTO else _share(hold_out)
    return math.ceil(needed / share)


def _share(hold_out: str) -> float:
    """Read a share between 0 and 1, or raise InputError."""
    try:
        share = float(hold_out)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise InputError(
            f"the hold-out is {hold_out[:80]!r}",
            hint="give --hold-out a number of images, a share such as 0.3, or auto",
        )
    return share
