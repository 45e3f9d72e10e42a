"""Targets of sinks: their addresses, and the answers of servers that are not what they should be."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

from edgead.errors import SinkError
from edgead.files.addresses import Address
from edgead.streaming.record import state_record
from edgead.streaming.sinks import modbus, plan_sinks, webhook
from edgead.streaming.sinks.mqtt import Broker
from tests.fuzz.mutations import BYTES, TEXT
from tests.fuzz.target import Target
from tests.streaming.test_sinks import BACK

REGISTERS = 100


def _addresses(folder: Path) -> list[bytes]:
    addresses = (
        "jsonl:out.jsonl?max_mb=1&keep=3&fsync_s=0.5",
        "jsonl:-",
        "video:out.mkv?fps=25.0&segment_s=10&keep=4",
        "rejects:rejects?keep=10&max_mb=2.5",
        "mqtt://user:secret@broker:1883/plant/line?spool=line.spool&keep=10",
        "webhook:http://user:secret@10.0.0.1:8080/in?line=7&token=secret#spool=line.spool&keep=10",
        "modbus://10.0.0.1:502/?registers=100&coils=16&unit=3",
        "opcua:4840",
        "opcua://user:secret@0.0.0.0:4840/?cert=cert.pem&key=key.pem",
        "prometheus:127.0.0.1:9105",
        "prometheus:9105",
        "status:",
        "window:",
    )
    return [address.encode() for address in addresses]


def _read_address(data: bytes, folder: Path) -> None:
    # The command line gives names of other bytes in this form. Nothing is opened, because it may be any file.
    address = data.decode("utf-8", "surrogateescape")
    for plan in plan_sinks([address, "jsonl:beside.jsonl"]):
        assert plan.place


def _topics(folder: Path) -> list[bytes]:
    return [
        topic.encode()
        for topic in ("line", "plant/line 7/kamera-\N{LATIN SMALL LETTER U WITH DIAERESIS}", "/a//b")
    ]


def _read_topic(data: bytes, folder: Path) -> None:
    """A topic that is accepted can be published to, and comes through an address as it is."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    topic = data.decode("utf-8", "surrogateescape")
    Broker("broker", 1883, topic)
    client = Client(CallbackAPIVersion.VERSION2)
    for end in ("events", "state"):
        client.will_set(f"{topic}/{end}", "{}", 1)
        client.publish(f"{topic}/{end}", "{}", 1)
    address = Address.parse(f"mqtt://broker/{quote(topic, safe='')}?spool=s")
    assert quote(topic, safe="") in address.url


@contextmanager
def _answering(data: bytes) -> Iterator[int]:
    """A server that answers the first request of each connection with these bytes; yields its port.

    If their number is odd, it then hangs up; otherwise it says no more.
    """
    ends = threading.Event()
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            held.append(connection)
            if ends.is_set():
                return
            # A client may be gone by then.
            with contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(data)
                if len(data) % 2:
                    connection.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ends.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()
            for connection in held:
                connection.close()


CONFIRMED = struct.pack(">HHHBBHH", 1, 0, 6, 1, 16, REGISTERS, 5)


def _frames(folder: Path) -> list[bytes]:
    """Answers to the first request of a connection, and what is no answer to it."""
    refused = struct.pack(">HHHBBB", 1, 0, 3, 1, 0x90, 2)
    read = struct.pack(">HHHBBBHH", 1, 0, 7, 1, 3, 4, 1, 2)
    diagnosis = struct.pack(">HHHBBHH", 1, 0, 6, 1, 8, 0, 7)
    identity = struct.pack(">HHHBBBBBBBBBB", 1, 0, 11, 1, 0x2B, 0x0E, 1, 1, 0, 0, 1, 0, 1) + b"x"
    return [CONFIRMED, refused, read, diagnosis, identity, CONFIRMED + CONFIRMED]


def _read_frame(data: bytes, folder: Path) -> None:
    controller = modbus.Controller("127.0.0.1", registers=REGISTERS)
    with _answering(data) as port, patch.object(modbus, "TIMEOUT_S", 0.02):
        sink = modbus.Modbus(modbus.Controller(controller.host, port, registers=REGISTERS))
        try:
            sink.record(state_record(BACK))
            # Only the right confirmation of the request is one; zeros or other frames may come before it.
            assert CONFIRMED[6:] in data, "an answer was taken for a confirmation"
        finally:
            with contextlib.suppress(SinkError):
                sink.close()


def _answers(folder: Path) -> list[bytes]:
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nerror",
        b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
    ]


def _read_answer(data: bytes, folder: Path) -> None:
    for file in folder.glob("spool*"):
        file.unlink()
    with _answering(data) as port, patch.object(webhook, "TIMEOUT_S", 0.02):
        address = Address.parse(f"http://127.0.0.1:{port}/in")
        with webhook.Webhook(address, folder / "spool") as sink:
            problem = sink._post('{"spool": "s", "number": 1}')
            assert problem is None or problem.isprintable()
            assert problem is not None or b"2" in data


SINK_TARGETS: dict[str, Target] = {
    "sink-address": Target(_addresses, TEXT, _read_address, in_a_file=False),
    "mqtt-topic": Target(_topics, TEXT, _read_topic, in_a_file=False),
    "modbus-frame": Target(_frames, BYTES, _read_frame),
    "webhook-answer": Target(_answers, BYTES, _read_answer),
}
