"""A webhook: every record is posted to a web address, which may be away for hours.

Each request holds one record as JSON, with the keys "spool" and "number", and both again in the header
`Idempotency-Key`. The next record follows when the server has answered with a status of 200 to 299. After any other
answer, or none within `TIMEOUT_S`, the request is repeated with increasing pauses. So a server that has not understood
a record gets it again and again, and the status shows why.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from edgead.errors import SinkError
from edgead.files.addresses import Address, check_host, shown_mistyped, without_secrets
from edgead.streaming.pauses import pause_s
from edgead.streaming.servers import check_login
from edgead.streaming.sinks.base import Plan
from edgead.streaming.sinks.stored import KEEP_RECORDS, SentSink
from edgead.streaming.sinks.time_limit import time_limit
from edgead.streaming.tls import tls_context
from edgead.streaming.uri import number_in, read_options

TIMEOUT_S = 5.0
RETRY_MIN_S, RETRY_MAX_S = 1.0, 30.0
# Largest answer that is read to its end, so that the connection can be used again.
_MAX_ANSWER_BYTES = 2**16
_EXAMPLE = "give webhook:https://HOST/PATH#spool=FILE"


class Webhook(SentSink):
    """Records that are posted one after another.

    Args:
        address: Web address with user and password, ``http://...`` or ``https://...``.
        spool: File of the records that wait for the server.
        keep: Largest number of records that wait.
        ca: File of the certificates to trust; None for the ones of the system.

    Raises:
        SinkError: The address, the login or the certificates are not usable.
        EdgeadError: The spool cannot be opened.
    """

    def __init__(
        self, address: Address, spool: Path, keep: int = KEEP_RECORDS, ca: str | None = None
    ) -> None:
        parts = _parts_of(address)
        self._host, self._port = parts.hostname or "", parts.port
        self._context = tls_context(ca) if parts.scheme == "https" else None
        super().__init__(spool, keep)
        self.name = f"webhook:{without_secrets(address.url)}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json"}
        if address.user is not None:
            login = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        self._connection: http.client.HTTPConnection | None = None
        self._tries = 0
        self.start()

    def _send(self, message: str) -> bool:
        """Post the message. See `SentSink._send`."""
        problem = self._post(message)
        self._report(problem)
        if problem is None:
            self._tries = 0
            return True
        self._tries += 1
        self._wait(pause_s(self._tries, RETRY_MIN_S, RETRY_MAX_S))
        return False

    def _post(self, message: str) -> str | None:
        """Post one message; return why it is not confirmed."""
        record, is_kept_open = json.loads(message), self._connection is not None
        headers = self._headers | {"Idempotency-Key": f"{record['spool']}-{record['number']}"}
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            with time_limit(connection.sock, TIMEOUT_S):
                connection.request("POST", self._path, message.encode(), headers)
                answer = connection.getresponse()
                rest = answer.read(_MAX_ANSWER_BYTES)
            if answer.will_close or len(rest) == _MAX_ANSWER_BYTES:
                self._hang_up()
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            if is_kept_open and isinstance(error, ConnectionError):
                # Servers close a connection that was not used for a while.
                return self._post(message)
            # The text of another error may be what the server sent.
            reason = error.strerror if isinstance(error, OSError) else None
            return f"the server does not answer ({reason or type(error).__name__})"
        return None if 200 <= answer.status < 300 else f"the server answers {answer.status}"

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=TIMEOUT_S, context=self._context
            )
        connection.connect()
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Post what waits as long as the server confirms. See `StoredSink.close`."""
        super().close()
        if not self._sender.is_alive():
            self._hang_up()


def _parts_of(address: Address) -> SplitResult:
    """Split an address, or raise a SinkError."""
    shown = without_secrets(address.url)
    try:
        parts = urlsplit(address.url)
        # Reading the port checks it.
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        check_host(parts.hostname or "")
    except ValueError as error:
        # Its text may repeat a password that stands in the place of the port.
        raise SinkError(f"{shown} is no web address", hint=_EXAMPLE) from error
    if not is_usable:
        raise SinkError(f"{shown} is no web address", hint=_EXAMPLE)
    check_login(address, shown)
    return parts


def plan_webhook(target: str) -> Plan:
    """Read an address without its kind: ``https://HOST/PATH#spool=FILE``.

    Raises:
        SinkError: The address has no host or no spool.
        InputError: An option is unknown or has an invalid value.
    """
    url, mark, query = target.partition("#")
    known: dict[str, Callable[[str], Any]] = {"spool": str, "keep": number_in(int, 1), "ca": str}
    options = read_options(query, known) if mark else {}
    if "://" not in url or not options.get("spool"):
        raise SinkError(f"{shown_mistyped(target)} names no server and spool", hint=_EXAMPLE)
    address = Address.parse(url)
    if _parts_of(address).scheme == "https":
        tls_context(options.get("ca"))
    spool, keep = Path(options["spool"]), int(options.get("keep", KEEP_RECORDS))
    return Plan(spool, partial(Webhook, address, spool, keep, options.get("ca")))
