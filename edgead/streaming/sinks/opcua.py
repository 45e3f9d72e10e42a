"""OPC UA: a server with the latest state of the stream, which other systems read or subscribe to.

The object ``edgead`` has these variables, with the node identifiers ``ns=2;s=NAME``:

    state, reason                         state of the stream, and why it is degraded or there is no verdict
    good, rejected, withheld              numbers of frames so far, with a trigger of parts
    is_anomalous, anomaly_score, threshold, share_of_threshold, frame_index, part
                                          the verdict on the latest frame

Where there is no verdict, the variables of the verdict have no value, and their status is bad: `BadNoCommunication`
without a signal, `BadOutOfService` during a pause, `BadWaitingForInitialData` at the start, otherwise `BadNoData`. A
verdict of a degraded stream has the status `UncertainSensorNotAccurate`. The source timestamp is the time of the event.
Clients can write nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from edgead.errors import SinkError, needs_extra
from edgead.streaming.servers import LOCAL_HOST, read_listener, read_server
from edgead.streaming.sinks.base import Plan
from edgead.streaming.sinks.latest import LatestSink
from edgead.streaming.tls import tls_context
from edgead.text import one_line

T = TypeVar("T")
PORT = 4840
# Longest time for the start of the server, which makes a thousand nodes of the standard, on a small machine.
_START_S = 60.0
# Longest time for a write, which is a matter of a millisecond.
_WRITE_S = 2.0
_STOP_S = 0.5
# Largest message of a client. One that reads or subscribes to all variables needs a hundredth of it.
_MESSAGE_BYTES = 2**20
_CHUNK_BYTES = 2**16
_CLIENTS, _LOGIN_S = 16, 5.0
_URI = "urn:edgead"
_EXAMPLE = "give opcua:PORT, which this machine alone can read, or opcua://USER:PASSWORD@HOST:PORT/?cert=FILE&key=FILE"
_VERDICT = {
    "is_anomalous": "Boolean",
    "anomaly_score": "Double",
    "threshold": "Double",
    "share_of_threshold": "Double",
    "frame_index": "Int64",
    "part": "String",
}
_EMPTY: dict[str, Any] = {"Boolean": False, "Double": 0.0, "Int64": 0, "String": ""}
_STATE = {"state": "String", "reason": "String", "good": "Int64", "rejected": "Int64", "withheld": "Int64"}


@dataclass(frozen=True, slots=True)
class Access:
    """How clients of other machines log in, over encrypted connections only.

    Attributes:
        user: User name.
        password: Password.
        cert: PEM file of the server's certificate.
        key: PEM file of its key.
    """

    user: str
    password: str
    cert: str
    key: str


class OpcUa(LatestSink):
    """An OPC UA server with the latest state.

    Args:
        host: Address of this machine to listen on.
        port: TCP port.
        access: Login and certificate; None for a server without both.

    Raises:
        MissingExtraError: asyncua is not installed.
        SinkError: The port is in use or not allowed, or a certificate cannot be read.
    """

    def __init__(self, host: str, port: int, access: Access | None = None) -> None:
        with needs_extra("opcua", "a sink opcua:"):
            import asyncua
            from asyncua.common.connection import TransportLimits
        # The library logs what clients send wrong.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="edgead-opcua-server", daemon=True
        )
        self._thread.start()
        self._server = asyncua.Server(user_manager=_Users(access))
        self._server.limits = TransportLimits(
            max_recv_buffer=_CHUNK_BYTES,
            max_send_buffer=_CHUNK_BYTES,
            max_chunk_count=_MESSAGE_BYTES // _CHUNK_BYTES,
            max_message_size=_MESSAGE_BYTES,
        )
        # The library checks a message only when it is complete, so clients that do not log in must be few and brief.
        internal = self._server.iserver
        internal.max_connections, internal.max_pending_activation_seconds = _CLIENTS, _LOGIN_S
        try:
            self._run(self._start(host, port, access), _START_S)
        # The library raises errors of any kind for a certificate.
        except Exception as error:
            self._end()
            reason = one_line(error)[:200] or type(error).__name__
            raise SinkError(f"cannot listen on {host}:{port} ({reason})", hint=_EXAMPLE) from error

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Do work in the thread of the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _start(self, host: str, port: int, access: Access | None) -> None:
        from asyncua import ua

        server = self._server
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/edgead")
        server.set_server_name("edgead")
        await server.set_application_uri(_URI)
        if access is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            server.set_identity_tokens([ua.AnonymousIdentityToken])
        else:
            await server.load_certificate(access.cert, "pem")
            await server.load_private_key(access.key, format="pem")
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            server.set_identity_tokens([ua.UserNameIdentityToken])
        space = await server.register_namespace(f"{_URI}:stream")
        parent = await server.nodes.objects.add_object(ua.NodeId("edgead", space), "edgead")
        self._nodes = {}
        for name, kind in (_STATE | _VERDICT).items():
            node_id, variant = ua.NodeId(name, space), ua.VariantType[kind]
            # The value gives the variable its type; clients never see it.
            await parent.add_variable(node_id, name, _EMPTY[kind], variant)
            self._nodes[name] = node_id, variant
        await self._write()
        await server.start()

    def _show(self) -> None:
        """Write the state into the variables.

        Raises:
            SinkError: The thread of the server does not answer.
        """
        try:
            self._run(self._write(), _WRITE_S)
        except FutureTimeoutError as error:
            raise SinkError("the OPC UA server does not answer") from error

    async def _write(self) -> None:
        from asyncua import ua

        latest, verdict = self.latest, self.latest.verdict
        when = datetime.fromisoformat(latest.time) if latest.time else datetime.now(timezone.utc)
        for name in _STATE:
            await self._put(name, getattr(latest, name), when, ua.StatusCodes.Good)
        if verdict is not None:
            degraded = latest.state == "degraded"
            status = ua.StatusCodes.UncertainSensorNotAccurate if degraded else ua.StatusCodes.Good
        elif latest.state == "starting":
            status = ua.StatusCodes.BadWaitingForInitialData
        elif latest.state == "paused":
            status = ua.StatusCodes.BadOutOfService
        elif latest.is_running:
            status = ua.StatusCodes.BadNoData
        else:
            status = ua.StatusCodes.BadNoCommunication
        for name in _VERDICT:
            value = None if verdict is None else verdict[name]
            missing = value is None and verdict is not None
            await self._put(name, value, when, ua.StatusCodes.BadNoData if missing else status)

    async def _put(self, name: str, value: object, when: datetime, status: int) -> None:
        """Write one variable with its status."""
        from asyncua import ua

        node_id, variant = self._nodes[name]
        await self._server.write_attribute_value(
            node_id,
            ua.DataValue(
                ua.Variant(value, ua.VariantType.Null if value is None else variant),
                StatusCode=ua.StatusCode(status),
                SourceTimestamp=when,
                ServerTimestamp=datetime.now(timezone.utc),
            ),
        )

    def _end(self) -> None:
        async def stop() -> None:
            internal = self._server.iserver
            if internal.time_task is not None:
                # The library would wait for its next tick, up to a second.
                internal.time_task.cancel()
                internal.time_task = None
            await self._server.stop()

        try:
            self._run(stop(), _STOP_S)
        # A server that has not started has nothing to stop, and the library has an error of its own for each part.
        except Exception:
            logging.getLogger(__name__).debug("the server did not stop by itself", exc_info=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        if not self._thread.is_alive():
            self._loop.close()


class _Users:
    """Users of the server: none of them can write.

    Args:
        access: Login that is asked for; None to let everybody in.
    """

    def __init__(self, access: Access | None) -> None:
        self._access = access

    def get_user(
        self,
        iserver: object,
        username: str | None = None,
        password: str | bytes | None = None,
        certificate: object = None,
    ) -> Any:
        """Return the user of a login, or None to refuse it, as the library asks for it."""
        from asyncua.crypto.permission_rules import User, UserRole

        if self._access is not None:
            given = password.encode() if isinstance(password, str) else password or b""
            known = hmac.compare_digest(given, self._access.password.encode())
            if username != self._access.user or not known:
                return None
        return User(role=UserRole.User)


def plan_opcua(uri: str) -> Plan:
    """Read an address ``opcua:PORT`` or ``opcua://USER:PASSWORD@HOST:PORT/?cert=FILE&key=FILE``.

    Raises:
        SinkError: The address is not usable, lacks the login, or its files are no certificate and its key.
        InputError: An option is unknown.
    """
    if "//" not in uri:
        host, port = read_listener(uri, _EXAMPLE)
        if host is not None:
            raise SinkError(f"{uri} has a host and no login", hint=_EXAMPLE)
        return Plan(f"{LOCAL_HOST}:{port}", partial(OpcUa, LOCAL_HOST, port))
    server = read_server(uri, PORT, {"cert": str, "key": str}, _EXAMPLE)
    options = server.options
    if (
        server.path
        or not server.user
        or not server.password
        or not options.get("cert")
        or not options.get("key")
    ):
        # Without them, anybody could read along, or claim to be the server.
        raise SinkError(
            f"opcua://{server.host} needs a user, a password, a certificate and a key", hint=_EXAMPLE
        )
    access = Access(server.user, server.password, options["cert"], options["key"])
    tls_context(None, access.cert, access.key)
    return Plan(f"{server.host}:{server.port}", partial(OpcUa, server.host, server.port, access))
