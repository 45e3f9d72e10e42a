"""Clean end of a stream on Ctrl-C and SIGTERM: the sinks are closed and the summary is printed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Set an event on SIGINT and SIGTERM while the context is open.

    The second signal of a kind goes to the handler that was there before, so that pressing Ctrl-C twice ends the
    process. Python runs signal handlers in the main thread only; in another thread no signal sets the event.

    Yields:
        The event, to be given to `stream` as `stop`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
