"""Messages of an MQTT broker: one to TOPIC for each part, and to TOPIC/pause and TOPIC/resume.

The payload is the ID of the part. The subscription has QoS 0 and a clean session, because a message that a broker kept
or sent again would trigger for a part that has passed. Retained messages are ignored for the same reason.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgead.errors import needs_extra
from edgead.streaming.line import LineControl
from edgead.streaming.sinks.mqtt import RECONNECT_MAX_S, Broker, broker_of
from edgead.streaming.tls import tls_context
from edgead.streaming.triggers.base import MOST_ID_BYTES, Trigger, announce, report_trouble

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

# A trigger that is away costs verdicts, so its loss is found sooner than a sink's, and it comes back sooner.
KEEPALIVE_S = 2
RECONNECT_S = 1


class MqttTrigger(Trigger):
    """A subscription; reconnects without limit.

    Args:
        broker: Broker and topic.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
        SinkError: A certificate cannot be read.
    """

    def __init__(self, broker: Broker) -> None:
        with needs_extra("mqtt", "a trigger mqtt://"):
            from paho.mqtt.client import Client, MQTTv311
            from paho.mqtt.enums import CallbackAPIVersion
        context = tls_context(broker.ca, broker.cert, broker.key) if broker.tls else None
        self.name = broker.name
        self._broker, self._is_closed, self._failures = broker, False, 0
        # The broker, or the library, makes up the name of the client.
        self._client: Client = Client(CallbackAPIVersion.VERSION2, clean_session=True, protocol=MQTTv311)
        if context is not None:
            self._client.tls_set_context(context)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        self._client.reconnect_delay_set(RECONNECT_S, RECONNECT_MAX_S)

    def start(self, line: LineControl) -> None:
        """Connect, now or later. See `Trigger.start`."""
        topic = self._broker.topic

        def on_connect(client: Client, data: object, flags: object, reason: Any, properties: object) -> None:
            if reason.is_failure:
                self._report(line, f"the broker refuses the connection ({reason})")
            else:
                client.subscribe([(topic, 0), (f"{topic}/pause", 0), (f"{topic}/resume", 0)])

        def on_subscribe(
            client: Client, data: object, mid: int, reasons: list[Any], properties: object
        ) -> None:
            if any(reason.is_failure for reason in reasons):
                self._report(line, f"the broker refuses the topic {topic}")
            else:
                line.trouble, self._failures = None, 0

        def on_disconnect(*_: object) -> None:
            # A broker that refuses the connection hangs up, too.
            if line.trouble is None:
                self._report(line, "the connection is lost")

        def on_message(client: Client, data: object, message: MQTTMessage) -> None:
            now_ns = time.monotonic_ns()
            if not message.retain:
                announce(line, bytes(message.payload[:MOST_ID_BYTES]), now_ns)

        def on_control(client: Client, data: object, message: MQTTMessage) -> None:
            if not message.retain:
                (line.pause if message.topic.endswith("/pause") else line.resume)("trigger mqtt")

        self._client.on_connect = on_connect
        self._client.on_subscribe = on_subscribe
        # By topic: a broker may send messages of other topics, also of one that is not text in UTF-8.
        self._client.message_callback_add(topic, on_message)
        self._client.message_callback_add(f"{topic}/pause", on_control)
        self._client.message_callback_add(f"{topic}/resume", on_control)
        where = f"{self._broker.host}:{self._broker.port}"
        self._client.on_connect_fail = lambda *_: self._report(line, f"cannot connect to {where}")
        self._client.on_disconnect = on_disconnect
        line.trouble = "the trigger does not work: it is not connected yet"
        self._client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_S)
        self._client.loop_start()

    def _report(self, line: LineControl, reason: str) -> None:
        if not self._is_closed:
            self._failures += 1
            report_trouble(line, self.name, reason, self._failures)

    def close(self) -> None:
        """Log out. The thread of the library is not waited for, because it may be in a connection attempt."""
        self._is_closed = True
        self._client.disconnect()


def open_mqtt_trigger(uri: str) -> MqttTrigger:
    """Open the trigger of an address ``mqtt://`` or ``mqtts://``.

    Raises:
        SinkError: The address has no host or no topic, or a certificate cannot be read.
        InputError: An option is unknown or has an invalid value.
        MissingExtraError: paho-mqtt is not installed.
    """
    broker, _ = broker_of(uri, {}, "give mqtt://HOST/TOPIC")
    return MqttTrigger(broker)
