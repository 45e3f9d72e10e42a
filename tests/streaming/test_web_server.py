"""The web server of the page, of metrics and of triggers."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgead.streaming.web_server import BoundedHandler, BoundedServer

LIMIT_S = 30


@contextmanager
def served(error: Exception) -> Iterator[int]:
    """Serve answers that fail with an error; gives the port."""

    class Handler(BoundedHandler):
        def do_GET(self) -> None:  # noqa: N802 (name of the library)
            raise error

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
