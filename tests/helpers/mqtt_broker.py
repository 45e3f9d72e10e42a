"""A real MQTT broker, and a subscriber that sees every message."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from typing_extensions import Self

# Debian installs it where only root looks for programs.
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
LIMIT_S = 60

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no MQTT broker here: apt-get install mosquitto")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Broker:
    """Mosquitto on a free port, which keeps sessions and messages over a restart.

    Args:
        folder: Empty folder for its files.
        extra: More lines of its configuration.
    """

    def __init__(self, folder: Path, extra: str = "allow_anonymous true") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The broker gives up the rights of root.
        folder.chmod(0o777)
        self.port = free_port()
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
            f"max_queued_messages 0\nuser root\n{extra}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end_s = time.monotonic() + LIMIT_S
        while True:
            assert self._process.poll() is None, "the broker has ended"
            assert time.monotonic() < end_s
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)

    def stop(self) -> None:
        """End the broker as its system does; it saves its sessions."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill_while(self, work: Callable[[], object]) -> None:
        """Let the broker hang while a function runs, and kill it: it confirms nothing of that."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        work()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Subscriber:
    """A subscriber with a session of its own in the broker, so that it misses nothing while either of them is away."""

    def __init__(self, broker: Broker, topic: str) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._subscribed = threading.Event()
        self._client: Any = Client(CallbackAPIVersion.VERSION2, "subscriber", clean_session=False)
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, json.loads(message.payload))
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)

    def events(self) -> list[dict[str, Any]]:
        """The events, without those that the broker delivered again."""
        seen: dict[tuple[str, int], dict[str, Any]] = {}
        for topic, message in list(self.messages):
            if topic.endswith("/events"):
                seen.setdefault((message["spool"], message["number"]), message)
        return list(seen.values())

    def states(self) -> list[str]:
        return [message["state"] for topic, message in list(self.messages) if topic.endswith("/state")]

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
