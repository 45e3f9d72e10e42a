"""A web server of the stream, which any client may reach: it bounds connections, their time, and the processor's time.

A client that sends nothing, or hangs up without a word, would hold a thread for months. One that sends megabytes of
headers would take seconds of the interpreter's time, which the loop needs. And many small requests take as much: all
requests together get a share of one core, whatever they are and however fast the machine is.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader, RawIOBase
from typing import Any

CONNECTION_S = 2.0
MOST_CONNECTIONS = 16
MOST_REQUEST_BYTES = 2**14
POLL_S = 0.1
# CPU time that all requests may take at once, in seconds, before they wait for their share of a core.
BURST_S = 0.2

_log = logging.getLogger(__name__)


class BoundedServer(ThreadingHTTPServer):
    """A server with at most `MOST_CONNECTIONS` connections, each of which takes at most `CONNECTION_S`.

    Its requests take at most `cpu_share` of one core, beyond a burst. The others wait in the queue of the system, where
    they cost nothing.

    Args:
        address: Host and TCP port to listen on; a port of 0 is a free one.
        handler: Class of the answers.
        bind_and_activate: Whether to take connections at once.

    Attributes:
        cpu_share: CPU time of all requests in a second, in seconds.

    Raises:
        OSError: The port is in use or not allowed, or there is no such host. For a name that no host can have it is an
            OverflowError, TypeError or ValueError.
    """

    cpu_share = 0.03
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], bind_and_activate: bool = True
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._open: dict[socket.socket, float] = {}
        self._changing, self._stopping = threading.Lock(), threading.Event()
        self._allowance_s, self._filled_at_s = BURST_S, time.monotonic()
        self._taking_s = 0.0
        super().__init__(address, handler, bind_and_activate)

    def serve_forever(self, poll_interval: float = POLL_S) -> None:
        """Take connections until `shutdown`."""
        self._taking_s = time.thread_time()
        super().serve_forever(poll_interval)

    def shutdown(self) -> None:
        """Stop to take connections."""
        self._stopping.set()
        super().shutdown()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request, and count its CPU time."""
        began_s = time.thread_time()
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._pay(time.thread_time() - began_s)

    def _pay(self, cpu_s: float) -> float:
        """Take CPU time from the allowance; return what is left, less than 0 if others must wait."""
        with self._changing:
            now_s = time.monotonic()
            filled_s = self._allowance_s + (now_s - self._filled_at_s) * self.cpu_share
            self._allowance_s, self._filled_at_s = min(BURST_S, filled_s) - cpu_s, now_s
            return self._allowance_s

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Wait until there is CPU time for a connection; refuse it if too many are open."""
        # To take a connection and to start its thread costs as much as a short answer.
        before_s, self._taking_s = self._taking_s, time.thread_time()
        left_s = self._pay(self._taking_s - before_s)
        while left_s < 0.0:
            if self._stopping.wait(min(-left_s / self.cpu_share, POLL_S)):
                return False
            self.service_actions()
            left_s = self._pay(0.0)
        with self._changing:
            if len(self._open) >= MOST_CONNECTIONS:
                return False
            self._open[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._changing:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections that take too long."""
        with self._changing:
            late = [one for one, since_s in self._open.items() if time.monotonic() - since_s > CONNECTION_S]
        for one in late:
            with suppress(OSError):
                # Not the method of an encrypted socket, which forgets its key first: until the end of the connection,
                # the thread of the request would send plain text.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of ours with its place; say nothing about a client that hangs up or is cut off."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _log.error("answer to a request failed", exc_info=error)


class BoundedHandler(BaseHTTPRequestHandler):
    """Answers one request of `MOST_REQUEST_BYTES` at most; a larger one is refused or cut off."""

    timeout = CONNECTION_S
    server_version, sys_version = "edgead", ""

    def setup(self) -> None:
        """Bound the input."""
        super().setup()
        self.rfile = BufferedReader(_Bounded(self.rfile))

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (name of the library)
        """Log nothing, because the text comes from the client."""


class _Bounded(RawIOBase):
    """The first bytes of an input. The library answers the error behind them if it is amid headers."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MOST_REQUEST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            raise LineTooLong("request")
        count = int(self._file.readinto1(memoryview(buffer)[: self._left]))
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
