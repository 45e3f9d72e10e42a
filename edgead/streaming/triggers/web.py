"""A web server that takes a POST request for each part.

POST /trigger    a part has come; the body is its ID. The answer is the number of the trigger, as JSON.
POST /pause      no verdicts until POST /resume

Each request has a connection of its own, which may take `CONNECTION_S`. A page in a browser of this machine must not
trigger, so requests with an `Origin` are refused.
"""

from __future__ import annotations

import re
import time
from http import HTTPStatus

from edgead.errors import TriggerError
from edgead.files.parsing import json_text
from edgead.streaming.line import LineControl
from edgead.streaming.servers import LOCAL_HOST, read_listener
from edgead.streaming.triggers.base import MOST_ID_BYTES, ThreadTrigger, announce
from edgead.streaming.web_server import POLL_S, BoundedHandler, BoundedServer
from edgead.text import printable

_EXAMPLE = "give http:PORT, which this machine alone can reach, or http:0.0.0.0:PORT"


class WebTrigger(ThreadTrigger):
    """A web server on a port of this machine.

    Args:
        host: Address of this machine to listen on.
        port: TCP port; 0 for a free one.

    Raises:
        TriggerError: The port is in use or not allowed.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._server = _Server((host, port), _Handler, bind_and_activate=False)
        try:
            self._server.server_bind()
        except (OSError, OverflowError, TypeError, ValueError) as error:
            # Errors of all but the first kind come from a name that no host can have.
            self._server.server_close()
            raise self._not_usable(host, port, error) from error
        self.port = int(self._server.server_address[1])
        self.name = f"http:{host}:{self.port}"

    def start(self, line: LineControl) -> None:
        """Take requests from now on; earlier ones are refused, because their parts have passed. See `Trigger.start`.

        Raises:
            TriggerError: Another program has begun to use the port.
        """
        self._server.line = line
        try:
            self._server.server_activate()
        except OSError as error:
            raise self._not_usable(str(self._server.server_address[0]), self.port, error) from error
        super().start(line)

    def _run(self, line: LineControl) -> None:
        self._server.serve_forever(POLL_S)

    @staticmethod
    def _not_usable(host: str, port: int, error: Exception) -> TriggerError:
        return TriggerError(f"cannot listen on {host}:{port} ({error})", hint=_EXAMPLE)

    def close(self) -> None:
        """Stop the server; may be called twice."""
        if not self._stopping.is_set() and self._thread is not None:
            self._server.shutdown()
        super().close()
        self._server.server_close()


class _Server(BoundedServer):
    """A server with the control of a stream. A fast line triggers a hundred times a second, and none may wait."""

    cpu_share = 0.3
    line: LineControl


class _Handler(BoundedHandler):
    """Answers one request."""

    def do_POST(self) -> None:  # noqa: N802 (name of the library)
        """Take a trigger, a pause or its end."""
        now_ns = time.monotonic_ns()
        assert isinstance(self.server, _Server)
        line = self.server.line
        length = self.headers.get("Content-Length", "0")
        if "Origin" in self.headers:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif "Transfer-Encoding" in self.headers or not re.fullmatch(r"\d{1,9}", length):
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MOST_ID_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self.path == "/trigger":
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                return
            number = announce(line, body, now_ns)
            if number is None:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            else:
                self._answer({"trigger": number})
        elif self.path in ("/pause", "/resume"):
            set_pause = line.pause if self.path == "/pause" else line.resume
            set_pause(f"trigger http, {printable(str(self.client_address[0]))}")
            self._answer({"paused": line.is_paused})
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, content: object) -> None:
        data = json_text(content, indent=None).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def open_web(uri: str) -> WebTrigger:
    """Open the trigger of an address ``http:PORT`` or ``http:HOST:PORT``; a free port for the port 0.

    Raises:
        SinkError: The address is not usable.
        TriggerError: The port is in use.
        InputError: The address has options.
    """
    host, port = read_listener(uri, _EXAMPLE, least_port=0)
    return WebTrigger(host or LOCAL_HOST, port)
