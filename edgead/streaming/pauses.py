"""Pauses between the tries to reach a camera or a server that is away."""

from __future__ import annotations

import random

FIRST_WAIT_S = 0.5
# A camera that is back must be seen within 3 seconds.
LONGEST_WAIT_S = 2.0


def pause_s(tries: int, first_s: float = FIRST_WAIT_S, longest_s: float = LONGEST_WAIT_S) -> float:
    """Return the pause before a try, in seconds: a random share, from a half to the whole, of a doubling time.

    It is random because many machines that lost one recorder or server must not all come back at one moment.

    Args:
        tries: Number of the try, from 1.
        first_s: Longest pause before the first try, in seconds.
        longest_s: Longest pause of all, in seconds.
    """
    longest_now_s = min(first_s * 2.0 ** min(tries - 1, 30), longest_s)
    return longest_now_s * random.uniform(0.5, 1.0)  # noqa: S311


def is_logged(tries: int) -> bool:
    """Return True for the first, second, fourth, eighth ... try, because a camera may be away for days."""
    return tries & (tries - 1) == 0
