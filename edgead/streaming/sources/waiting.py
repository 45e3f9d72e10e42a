"""Pauses between the tries to open a source, and the wait for a source that is absent at the start."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edgead.errors import AbsentSourceError, InputError

FIRST_WAIT_S = 0.5
# A camera that is back must be seen within 3 seconds.
LONGEST_WAIT_S = 2.0

T = TypeVar("T")

_log = logging.getLogger(__name__)


def pause_s(tries: int, first_s: float = FIRST_WAIT_S, longest_s: float = LONGEST_WAIT_S) -> float:
    """Return the pause before a try, in seconds: a random share, from a half to the whole, of a doubling time.

    It is random because many machines that lost one recorder must not all come back at one moment.

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


def open_when_there(open_it: Callable[[], T], wait_s: float, stop: threading.Event) -> T | None:
    """Open a source, and wait for it if it is absent.

    Args:
        open_it: Function that opens the source.
        wait_s: Longest wait in seconds; 0 for one try, infinity for no limit.
        stop: Event that ends the wait.

    Returns:
        The opened source; None if `stop` was set.

    Raises:
        InputError: `wait_s` is negative or not a number.
        AbsentSourceError: The source has not come in time.
        SourceError: The source cannot be opened for another reason.
    """
    if not wait_s >= 0.0:
        raise InputError(f"wait is {wait_s}", hint="give a number of seconds, 0 or more")
    end_s, tries = time.monotonic() + wait_s, 0
    while not stop.is_set():
        try:
            return open_it()
        except AbsentSourceError as error:
            left_s = end_s - time.monotonic()
            if left_s <= 0.0:
                raise
            tries += 1
            if is_logged(tries):
                _log.warning("waiting, try %d: %s", tries, error)
        stop.wait(min(pause_s(tries), left_s))
    return None
