"""The wait for a source that is absent at the start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from edgead.errors import AbsentSourceError, InputError
from edgead.streaming.pauses import is_logged, pause_s

T = TypeVar("T")

# Longest time until a stop is noticed during a try that hangs.
_POLL_S = 0.05

_log = logging.getLogger(__name__)


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


def begin_to_open(open_it: Callable[[], T]) -> Future[T]:
    """Open a source in a thread of its own, so that sources that hang cost the time of one of them.

    Args:
        open_it: Function that opens the source.
    """
    opened = Future[T]()

    def run() -> None:
        try:
            opened.set_result(open_it())
        except BaseException as error:
            opened.set_exception(error)

    # A daemon thread: a driver that hangs must not keep the process alive.
    threading.Thread(target=run, name="edgead-opening", daemon=True).start()
    return opened


def result_or_stop(opened: Future[T], stop: threading.Event) -> T | None:
    """Return the result of `begin_to_open`, or raise its error; None if `stop` is set before."""
    while not stop.is_set():
        if wait([opened], _POLL_S).done:
            return opened.result()
    return None
