"""The page: a web server beside the loop, and the two sinks from which it knows the stream.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgead.errors import StreamError
from edgead.streaming.drift import DriftWatch
from edgead.streaming.line import LineControl
from edgead.streaming.page.access import Access
from edgead.streaming.page.address import EXAMPLE, PageAddress
from edgead.streaming.page.feed import PageFeed
from edgead.streaming.page.handler import PageHandler
from edgead.streaming.page.images import PageImages
from edgead.streaming.page.threshold import ThresholdDesk
from edgead.streaming.sinks.base import Sink
from edgead.streaming.web_server import POLL_S, BoundedServer
from edgead.types import Closing

# Requests that are taken in a second, beyond a burst. More wait in the queue of the system, where they cost nothing.
MOST_PER_S = 40.0
BURST = 40.0

_FILES = Path(__file__).with_name("files")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_log = logging.getLogger(__name__)


class Page(Closing):
    """An opened page of a stream: a context manager.

    Args:
        address: Address of the page.
        desk: Threshold of the stream.
        line: Control of the stream.
        drift: Watch of drift; None if the values of the build are not known.

    Attributes:
        port: TCP port of the page.
        url: Address for a browser.
        source: Address of the source, without secrets; empty until the source is open.

    Raises:
        StreamError: The port is in use or not allowed.
    """

    def __init__(
        self, address: PageAddress, desk: ThresholdDesk, line: LineControl, drift: DriftWatch | None = None
    ) -> None:
        self.source = ""
        self.desk, self.line, self.drift = desk, line, drift
        self.feed, self.images = PageFeed(), PageImages()
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
            raise StreamError(
                f"cannot listen on {address.host}:{address.port} ({error})", hint=EXAMPLE
            ) from error
        self.port = self._server.port
        self.access = Access(replace(address, port=self.port))
        # All addresses of this machine are no address for a browser.
        host = socket.gethostname() if address.host in ("0.0.0.0", "::") else address.host  # noqa: S104 (a comparison)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if address.tls else ''}://{shown}:{self.port}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="edgead-page", daemon=True
        )
        self._thread.start()
        _log.info("page: %s", self.url)

    def sinks(self) -> list[Sink]:
        """Return the sinks through which the page gets the events of the stream."""
        return [self.feed, self.images]

    def numbers(self) -> dict[str, Any]:
        """Return all that the page shows except the images, with values that JSON can encode."""
        rejects = [
            {
                "number": one.number,
                "frame_index": one.verdict.frame_index,
                "score": one.verdict.anomaly_score,
                "threshold": one.verdict.threshold,
                "part_id": one.verdict.trigger.part_id if one.verdict.trigger else None,
                "age_s": one.age_s,
            }
            for one in self.images.rejects()
        ]
        return {
            "run": self.run,
            "source": self.source,
            "part": self.desk.part,
            "is_paused": self.line.is_paused,
            **self.feed.numbers(),
            "threshold": self.desk.numbers(),
            "rejects": rejects,
            "drift": [] if self.drift is None else self.drift.numbers(),
        }

    def close(self) -> None:
        """Stop the server; may be called twice."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()


class _Server(BoundedServer):
    """A bounded server that takes requests at a limited rate, and lets the others wait instead of refusing them."""

    def __init__(self, address: PageAddress, page: Page) -> None:
        self.page, self._tls = page, address.tls
        self._stopping = threading.Event()
        self._allowance, self._paid_at_s = BURST, time.monotonic()
        handler = type("Handler", (PageHandler,), {"page": page})
        super().__init__((address.host, address.port), handler)

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
        """Wait until the request is due and one of the connections is free."""
        now_s = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now_s - self._paid_at_s) * MOST_PER_S) - 1.0
        self._paid_at_s = now_s
        if self._allowance < 0.0:
            self._stopping.wait(-self._allowance / MOST_PER_S)
        while not super().verify_request(request, client_address):
            self.service_actions()
            if self._stopping.wait(1.0 / MOST_PER_S):
                return False
        return True

    def stop(self) -> None:
        """Stop to take requests, and close the port."""
        self._stopping.set()
        self.shutdown()
        self.server_close()
