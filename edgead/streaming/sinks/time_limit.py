"""A limit on the time of a whole exchange with a server; the timeout of a socket begins again with every byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def time_limit(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End a connection if the block takes longer: a read in the block then gets the end of the stream.

    Args:
        connection: Connected socket, encrypted or not.
        seconds: Longest time in seconds.

    Yields:
        Nothing.

    Raises:
        TimeoutError: The block took longer, whatever it got until then.
    """
    is_over = threading.Event()

    def shut_down() -> None:
        is_over.set()
        with suppress(OSError):
            # Not the method of an encrypted socket, which another thread must not call during a read.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if is_over.is_set():
            raise TimeoutError(f"it takes longer than {seconds:g} s")
