"""MQTT: records for programs on other machines, through a broker that may be away.

Topics below the topic of the address:

    TOPIC/events   every record, with QoS 1, as JSON with two more keys: "spool" and "number"
    TOPIC/state    the latest change of the state, with the states of all cameras, retained, or {"state": "gone"} if the
                   stream died or lost its network (the last will)

QoS 1 delivers at least once. A receiver that must not count a record twice ignores a number that is not greater than
the last one of the same spool.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgead.errors import EdgeadError, SinkError, needs_extra
from edgead.files.addresses import without_secrets
from edgead.files.parsing import json_text
from edgead.streaming.record import Record
from edgead.streaming.servers import read_server
from edgead.streaming.sinks.base import Plan
from edgead.streaming.sinks.stored import KEEP_RECORDS, StoredSink, numbered
from edgead.streaming.tls import tls_context
from edgead.streaming.uri import number_in

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

PORT, TLS_PORT = 1883, 8883
# A broker that does not answer for one and a half times this time is lost.
KEEPALIVE_S = 10
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
# Largest number of messages that are not confirmed yet.
MOST_SENT = 200
_EXAMPLE = "give mqtt://HOST/TOPIC?spool=FILE"
_MAX_TOPIC_BYTES = 65535 - len("/events")


@dataclass(frozen=True, slots=True)
class Broker:
    """Address of a broker, and what it needs to be reached.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        topic: Topic above the topics of the stream.
        user: User name; None to log in without one.
        password: Password.
        tls: Whether the connection is encrypted and the broker's certificate is checked.
        ca: File of the certificates to trust; None for the ones of the system.
        cert: File of the client's certificate; None if the broker asks for none.
        key: File of the key of that certificate.

    Raises:
        SinkError: The topic is not usable.
    """

    host: str
    port: int
    topic: str
    user: str | None = None
    password: str = ""
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        data = self.topic.encode(errors="surrogatepass")
        printable = self.topic.isprintable() and self.topic == data.decode(errors="replace")
        if not self.topic or not printable or set("+#") & set(self.topic) or len(data) > _MAX_TOPIC_BYTES:
            raise SinkError(
                f"topic {self.topic[:100]!r} is not usable", hint="give mqtt://HOST/TOPIC, without + and #"
            )

    @property
    def name(self) -> str:
        """Address without user and password, for messages."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}/{self.topic}"


class Mqtt(StoredSink):
    """Records and state of the stream, published to a broker; reconnects without limit.

    Args:
        broker: Broker and topic.
        spool: File of the records that wait for the broker.
        keep: Largest number of records that wait.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
        EdgeadError: The spool cannot be opened, or a certificate cannot be read.
    """

    def __init__(self, broker: Broker, spool: Path, keep: int = KEEP_RECORDS) -> None:
        with needs_extra("mqtt", "a sink mqtt://"):
            from paho.mqtt.client import Client, MQTTv311
            from paho.mqtt.enums import CallbackAPIVersion
        context = tls_context(broker.ca, broker.cert, broker.key) if broker.tls else None
        super().__init__(spool, keep)
        self.name = broker.name
        self._broker = broker
        self._state: dict[str, Any] = {"state": "starting"}
        self._trouble = "not connected yet"
        self._failure: str | None = None
        # Messages that are not known to be confirmed, and the number of the last record that was sent.
        self._sent: deque[_Sent] = deque()
        self._sent_through = self._connections = 0
        self._cameras: dict[str, str] = {}
        # Number of the connection; None while it is away.
        self._connection: int | None = None
        self._client: Client = Client(
            CallbackAPIVersion.VERSION2, f"edgead-{self._spool.id}", clean_session=True, protocol=MQTTv311
        )
        if context is not None:
            self._client.tls_set_context(context)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        self._client.will_set(
            f"{broker.topic}/state", json_text({"state": "gone"}, indent=None), 1, retain=True
        )
        self._client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._report(
            f"cannot connect to {broker.host}:{broker.port}"
        )
        self._client.on_disconnect = self._on_disconnect
        self._client.on_socket_open = _send_at_once
        self._client.on_publish = _confirm_at_once
        # The stream starts without its broker too; the thread of the library connects, now or later.
        self._client.connect_async(broker.host, broker.port, KEEPALIVE_S)
        self._client.loop_start()

    def record(self, record: Record) -> None:
        """Publish a change of the state, and store the record. See `RecordSink.record`."""
        if record["event"] == "state":
            self._cameras[record.get("camera", "")] = record["state"]
            change = {key: value for key, value in record.items() if key != "event"}
            self._set_state({**change, "cameras": dict(self._cameras)})
        super().record(record)

    def close(self) -> None:
        """Send what waits as long as the broker confirms, and log out. See `StoredSink.close`."""
        if self._is_closed:
            return
        super().close()
        # Unless the record of the end has said so already.
        if self._state["state"] != "stopped":
            self._set_state({"state": "stopped"})
        # The thread of the library sends what it has and ends. It is not waited for, because it may be in a connection
        # attempt.
        self._client.disconnect()

    def _set_state(self, state: dict[str, Any]) -> None:
        self._state = state
        if self._client.is_connected():
            self._publish_state()

    def _publish_state(self) -> None:
        # Without a confirmation: a state that gets lost is published again with the next connection.
        topic, text = f"{self._broker.topic}/state", json_text(self._state, indent=None)
        self._client.publish(topic, text, 0, retain=True)

    def _on_connect(
        self, client: Client, data: object, flags: object, reason: Any, properties: object
    ) -> None:
        if reason.is_failure:
            self._report(f"the broker refuses the connection ({reason})")
            return
        self._connections += 1
        self._connection = self._connections
        self._report(None)
        self._publish_state()

    def _on_disconnect(
        self, client: Client, data: object, flags: object, reason: Any, properties: object
    ) -> None:
        self._connection = None
        if not self._is_closed:
            self._report(f"the connection is lost ({reason})")

    def _forward(self) -> None:
        """Remove the confirmed records, and publish the next ones. See `StoredSink._forward`."""
        try:
            self._remove_confirmed()
            self._publish_waiting()
        except EdgeadError as error:
            # The disk fails. Nothing is lost, because the records that wait are stored.
            self._failure = str(error)
            self._report(self._failure)
        else:
            if self._failure is not None and self._trouble == self._failure:
                self._report(None)
            self._failure = None

    def _remove_confirmed(self) -> None:
        done = list(takewhile(lambda sent: _is_confirmed(sent.message), self._sent))
        if done:
            self._spool.remove_through(done[-1].number)
            for _ in done:
                self._sent.popleft()

    def _publish_waiting(self) -> None:
        connection = self._connection
        # The library would send new messages before the ones of an earlier connection, which it repeats.
        repeats = bool(self._sent) and self._sent[0].connection != connection
        if connection is None or repeats or len(self._spool) == len(self._sent):
            return
        for number, text in self._spool.first(MOST_SENT - len(self._sent), self._sent_through):
            if self._connection != connection:
                return
            message = numbered(self._spool, number, text)
            published = self._client.publish(f"{self._broker.topic}/events", message, 1)
            self._sent.append(_Sent(published, number, connection))
            self._sent_through = number


class _Sent(NamedTuple):
    """A message that is not known to be confirmed, with the numbers of its record and of its connection."""

    message: MQTTMessageInfo
    number: int
    connection: int


def _is_confirmed(message: MQTTMessageInfo) -> bool:
    """Return whether the broker has a message, which the library repeats after each reconnection until it has."""
    # Without this, the library would give an error for a message whose connection was gone for a moment.
    message.rc = message.rc.__class__(0)
    return message.is_published()


def _send_at_once(client: Client, data: object, connection: Any) -> None:
    """Make a new connection send small packets without a wait for the confirmation of earlier ones."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _confirm_at_once(client: Client, data: object, mid: int, reason: object, properties: object) -> None:
    """Let the broker send its next confirmation, which it may hold back until this one is confirmed in turn.

    Linux confirms small packets up to 40 ms later.
    """
    connection: Any = client.socket()
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def plan_mqtt(uri: str) -> Plan:
    """Read an address ``mqtt://`` or ``mqtts://``. See `edgead.streaming.sinks.open_sink`.

    Raises:
        SinkError: The address has no host, no topic or no spool.
        InputError: An option is unknown or has an invalid value.
    """
    broker, options = broker_of(uri, {"spool": str, "keep": number_in(int, 1)}, _EXAMPLE)
    if not options.get("spool"):
        raise SinkError(f"{without_secrets(uri)} names no spool", hint=_EXAMPLE)
    if broker.tls:
        tls_context(broker.ca, broker.cert, broker.key)
    spool, keep = Path(options["spool"]), int(options.get("keep", KEEP_RECORDS))
    return Plan(spool, partial(Mqtt, broker, spool, keep))


def broker_of(
    uri: str, known: Mapping[str, Callable[[str], Any]], example: str
) -> tuple[Broker, Mapping[str, Any]]:
    """Read an address ``mqtt://`` or ``mqtts://``.

    Args:
        uri: Address.
        known: Parsers of options beside those of the connection, see `read_options`.
        example: Hint of the error for an address that is not usable.

    Returns:
        The broker, and the options that are given.

    Raises:
        SinkError: The address has no host or no topic.
        InputError: An option is unknown or has an invalid value.
    """
    tls = uri.startswith("mqtts:")
    parsers: dict[str, Callable[[str], Any]] = {**known, "ca": str, "cert": str, "key": str}
    server = read_server(uri, TLS_PORT if tls else PORT, parsers, example)
    options = server.options
    if not tls and {"ca", "cert", "key"} & set(options):
        raise SinkError(
            f"{without_secrets(uri)} is not encrypted, so it has no certificates",
            hint="write mqtts:// in front",
        )
    files = (options.get(name) for name in ("ca", "cert", "key"))
    broker = Broker(server.host, server.port, server.path, server.user, server.password, tls, *files)
    return broker, options
