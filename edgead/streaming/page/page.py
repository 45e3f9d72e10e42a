"""The page: a web server beside the loop, with the cameras that it shows.

It is one HTML file with a script that asks for the numbers once a second and for the newest image several times a
second. Every request is short, so a viewer that never reads is cut off like any other slow client, and a page that is
open finds the stream again when that starts anew.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgead.errors import StreamError
from edgead.streaming.page.access import Access
from edgead.streaming.page.address import EXAMPLE, PageAddress
from edgead.streaming.page.camera import PageCamera
from edgead.streaming.page.handler import PageHandler
from edgead.streaming.web_server import POLL_S, BoundedServer
from edgead.types import Closing

# Shortest time between two marks of images: to write one takes the processor for 10 ms and more.
MARK_EVERY_S = 1.0
# Time until a connection looks again for a free one.
WAIT_S = 0.025

_FILES = Path(__file__).with_name("files")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_log = logging.getLogger(__name__)


class Page(Closing):
    """An opened page of a stream: a context manager. The port is taken at once, and requests from `start` on.

    Args:
        address: Address of the page.

    Attributes:
        port: TCP port of the page.
        url: Address for a browser.
        cameras: Cameras by name; empty before `start`.

    Raises:
        StreamError: The port is in use or not allowed.
    """

    def __init__(self, address: PageAddress) -> None:
        self.cameras: dict[str, PageCamera] = {}
        # A page that is open notices by it that the stream has started anew, and so have the numbers of images.
        self.run = secrets.token_hex(8)
        # All files are read here, so that no path of a request ever reaches the disk.
        self.files = {
            file.name: (_TYPES[file.suffix], file.read_bytes())
            for file in sorted(_FILES.iterdir())
            if file.suffix in _TYPES
        }
        try:
            self._server = _Server(address, self)
        except (OSError, OverflowError, TypeError, ValueError) as error:
            # Errors of all but the first kind come from a name that no host can have.
            raise _cannot_listen(address, error) from error
        self._address = replace(address, port=self._server.port)
        self.port = self._server.port
        self.access = Access(self._address)
        # All addresses of this machine are no address for a browser.
        host = socket.gethostname() if address.host in ("0.0.0.0", "::") else address.host  # noqa: S104 (a comparison)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if address.tls else ''}://{shown}:{self.port}/"
        self._thread: threading.Thread | None = None
        self._marking, self._marked_at_s = threading.Lock(), -MARK_EVERY_S

    def start(self, cameras: Sequence[PageCamera]) -> None:
        """Take requests from now on; called once.

        Args:
            cameras: Cameras of the stream, one or more.

        Raises:
            StreamError: Another program has begun to use the port.
        """
        self.cameras = {camera.name: camera for camera in cameras}
        try:
            self._server.server_activate()
        except OSError as error:
            raise _cannot_listen(self._address, error) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="edgead-page", daemon=True
        )
        self._thread.start()
        _log.info("page: %s", self.url)

    def may_mark(self) -> bool:
        """Return whether an image may be marked now, and count it."""
        with self._marking:
            now_s = time.monotonic()
            if now_s - self._marked_at_s < MARK_EVERY_S:
                return False
            self._marked_at_s = now_s
            return True

    def overview(self) -> dict[str, Any]:
        """Return what the tiles of all cameras show, with values that JSON can encode."""
        return {"run": self.run, "cameras": [camera.overview() for camera in self.cameras.values()]}

    def close(self) -> None:
        """Stop the server; may be called twice."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()


def _cannot_listen(address: PageAddress, error: Exception) -> StreamError:
    return StreamError(f"cannot listen on {address.host}:{address.port} ({error})", hint=EXAMPLE)


class _Server(BoundedServer):
    """A bounded server that lets connections wait for a free one instead of refusing them."""

    def __init__(self, address: PageAddress, page: Page) -> None:
        self.page, self._tls = page, address.tls
        handler = type("Handler", (PageHandler,), {"page": page})
        super().__init__((address.host, address.port), handler, bind_and_activate=False)
        try:
            self.server_bind()
        except BaseException:
            self.server_close()
            raise

    @property
    def port(self) -> int:
        """TCP port that the server listens on."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection. With a certificate, the thread of the request does the handshake."""
        connection, client = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, client

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Wait until one of the connections is free, and there is CPU time."""
        while not super().verify_request(request, client_address):
            self.service_actions()
            if self._stopping.wait(WAIT_S):
                return False
        return True
