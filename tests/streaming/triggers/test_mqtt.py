"""Triggers of a real MQTT broker."""

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from edgead.errors import EdgeadError, InputError, TriggerError
from edgead.streaming import open_trigger
from edgead.streaming.triggers import mqtt
from edgead.streaming.triggers.base import MOST_ID_CHARACTERS
from tests.helpers.mqtt_broker import Broker, needs_broker
from tests.helpers.trigger_parts import started, wait_until


class Publisher:
    """A client that publishes, and reconnects."""

    def __init__(self, broker: Broker) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    def send(self, topic: str, payload: bytes = b"", *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@needs_broker
def test_messages_announce_parts_pause_and_resume(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        publisher = Publisher(broker)
        # The part of a retained message has passed.
        publisher.send("line/7", b"old", retain=True)
        publisher.send("line/7/pause", b"", retain=True)
        with started(f"mqtt://127.0.0.1:{broker.port}/line/7") as (_, line):
            wait_until(lambda: line.trouble is None)
            publisher.send("line/7", b"S1")
            publisher.send("line/7/other", b"no part")
            publisher.send("line/7", b"\xff" + b"x" * 10_000)
            publisher.send("line/7", b"")
            line.take(3)
            assert line.ids[::2] == ["S1", None]
            assert len(str(line.ids[1])) == MOST_ID_CHARACTERS
            publisher.send("line/7/pause")
            wait_until(lambda: line.is_paused)
            publisher.send("line/7/resume")
            wait_until(lambda: not line.is_paused)
        publisher.close()


@needs_broker
def test_a_broker_that_is_away_is_reported_and_keeps_no_triggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "RECONNECT_S", 0.1)
    monkeypatch.setattr(mqtt, "RECONNECT_MAX_S", 0.2)
    broker = Broker(tmp_path / "broker")
    with started(f"mqtt://127.0.0.1:{broker.port}/line") as (_, line):
        wait_until(lambda: line.trouble)
        with broker:
            wait_until(lambda: line.trouble is None)
            broker.stop()
            wait_until(lambda: line.trouble)
            broker.start()
            publisher = Publisher(broker)
            publisher.send("line", b"meanwhile")
            wait_until(lambda: line.trouble is None)
            publisher.send("line", b"now")
            wait_until(lambda: line.poll() and line.ids[-1] == "now")
            publisher.close()


def test_messages_of_other_topics_do_nothing() -> None:
    def message(topic: bytes, payload: bytes = b"") -> bytes:
        rest = len(topic).to_bytes(2, "big") + topic + payload
        return bytes([0x30, len(rest)]) + rest

    def broker() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1024)
            client.sendall(b"\x20\x02\0\0")
            subscription = client.recv(1024)
            client.sendall(b"\x90\x05" + subscription[2:4] + b"\0\0\0" + message(b"line/pause"))
            client.sendall(message(b"\xff") + message(b"other") + message(b"line", b"S1"))
            ended.wait(30)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=broker)
        thread.start()
        with started(f"mqtt://127.0.0.1:{server.getsockname()[1]}/line") as (_, line):
            line.take(1)
            assert (line.ids, line.is_paused) == (["S1"], True)
        ended.set()
        thread.join()


@needs_broker
@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="needs mosquitto_passwd")
def test_a_wrong_password_is_a_trouble(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "line", "right"], check=True)
    passwords.chmod(0o644)
    with (
        Broker(tmp_path / "broker", f"allow_anonymous false\npassword_file {passwords}") as broker,
        started(f"mqtt://line:wrong@127.0.0.1:{broker.port}/line") as (trigger, line),
    ):
        wait_until(lambda: line.trouble and "refuses" in line.trouble)
        assert "wrong" not in trigger.name + str(line.trouble)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("mqtt:", TriggerError),
        ("mqtt://host", TriggerError),
        ("mqtt:///topic", TriggerError),
        ("mqtt://host/a/+/b", TriggerError),
        ("mqtt://host/a?ca=x", TriggerError),
        ("mqtts://host/a?ca=/does/not/exist", TriggerError),
        ("mqtt://host/a?spool=x", InputError),
    ],
)
def test_an_address_that_is_not_usable_is_refused(uri: str, kind: type[EdgeadError]) -> None:
    with pytest.raises(kind):
        open_trigger(uri)
