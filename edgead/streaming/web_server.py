"""A web server of the stream, which any client may reach: it bounds the connections and their time.

A client that sends nothing, or hangs up without a word, would hold a thread for months.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONNECTION_S = 2.0
MOST_CONNECTIONS = 16
POLL_S = 0.1


class BoundedServer(ThreadingHTTPServer):
    """A server with at most `MOST_CONNECTIONS` connections, each of which takes at most `CONNECTION_S`.

    Args:
        address: Host and TCP port to listen on; a port of 0 is a free one.
        handler: Class of the answers.
        bind_and_activate: Whether to take connections at once.

    Raises:
        OSError: The port is in use or not allowed, or there is no such host. For a name that no host can have it is an
            OverflowError, TypeError or ValueError.
    """

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], bind_and_activate: bool = True
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._open: dict[socket.socket, float] = {}
        self._changing = threading.Lock()
        super().__init__(address, handler, bind_and_activate)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection if too many are open."""
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
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a client that hangs up."""
