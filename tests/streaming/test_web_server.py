"""The web server of the page, of metrics and of triggers."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgead.streaming.web_server import BURST_S, MOST_CONNECTIONS, BoundedHandler, BoundedServer

LIMIT_S = 30


@contextmanager
def served(error: Exception | None = None, cpu_s: float = 0.0) -> Iterator[int]:
    """Serve answers that take CPU time, and fail with an error if there is one; gives the port."""

    class Handler(BoundedHandler):
        def do_GET(self) -> None:  # noqa: N802 (name of the library)
            end_s = time.thread_time() + cpu_s
            while time.thread_time() < end_s:
                pass
            if error is not None:
                raise error
            self.send_response(204)
            self.end_headers()

    with BoundedServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("error", "is_logged"), [(ValueError("ours"), True), (ConnectionResetError("theirs"), False)]
)
def test_only_an_error_of_ours_is_logged(
    caplog: pytest.LogCaptureFixture, error: Exception, is_logged: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with served(error) as port, socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        # The end of the connection comes after the error.
        assert client.recv(1) == b""
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error] * is_logged


def test_all_requests_together_take_no_more_than_their_share_of_a_core() -> None:
    cpu_s, answered = 0.02, 0
    with served(cpu_s=cpu_s) as port:
        began_s = time.monotonic()
        while time.monotonic() < began_s + 3.0:
            with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answered += client.recv(1) != b""
        allowed_s = BURST_S + BoundedServer.cpu_share * (time.monotonic() - began_s)
    # A connection may be taken while the answers to others are not yet counted.
    assert BURST_S / cpu_s <= answered <= allowed_s / cpu_s + MOST_CONNECTIONS
