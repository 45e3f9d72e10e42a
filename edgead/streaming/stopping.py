"""Signals of a stream: a clean end on Ctrl-C, SIGTERM and SIGHUP, a pause on SIGUSR1, and its end on SIGUSR2."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def pause_on_signals(pause: Callable[[], None], resume: Callable[[], None]) -> Iterator[None]:
    """Call functions on SIGUSR1 and SIGUSR2 while the context is open; in another thread than the main one, do nothing.

    Args:
        pause: Function for SIGUSR1. It must take no lock.
        resume: Function for SIGUSR2. It must take no lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    calls = {signal.SIGUSR1: pause, signal.SIGUSR2: resume}
    # None is a handler of another language, which could not be put back.
    previous = {number: handler for number in calls if (handler := signal.getsignal(number)) is not None}
    for number in previous:
        signal.signal(number, lambda *_, call=calls[number]: call())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set an event on SIGINT, SIGTERM and SIGHUP while the context is open.

    The second SIGINT goes to the handler that was there before, so that pressing Ctrl-C twice ends the process. SIGINT
    and SIGHUP stay ignored if they are ignored: in the background of a shell script, or under nohup. Python runs signal
    handlers in the main thread only; in another thread no signal sets the event.

    Yields:
        The event, to be given to `stream` as `stop`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # None is a handler of another language, which could not be put back.
        if (handler := signal.getsignal(number)) is not None
        and (number == signal.SIGTERM or handler is not signal.SIG_IGN)
    }

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
