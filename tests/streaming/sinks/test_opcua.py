"""The OPC UA sink, read by a client of its library."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import Sink, Summary, open_sink, stream
from edgead.streaming.state import StateChange
from edgead.types import UInt8Array
from tests.helpers.certificates import certificate, needs_openssl
from tests.helpers.mqtt_broker import LIMIT_S, free_port
from tests.helpers.stream_parts import SIZE, ScriptedSource, frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict

T = TypeVar("T")
VERDICT = ("is_anomalous", "anomaly_score", "threshold", "share_of_threshold", "frame_index", "part")
STATE = ("state", "reason", "good", "rejected", "withheld")


def asking(port: int, work: Callable[[Any], Awaitable[T]], **login: Any) -> T:
    """Do work with a client that is connected."""
    from asyncua import Client

    async def ask() -> T:
        client = Client(f"opc.tcp://127.0.0.1:{port}/edgead", timeout=LIMIT_S)
        if login:
            client.set_user(login["user"])
            client.set_password(login["password"])
            await client.set_security_string(
                f"Basic256Sha256,SignAndEncrypt,{login['cert']},{login['key']},{login['cert']}"
            )
        async with client:
            return await work(client)

    return asyncio.run(ask())


async def read(client: Any) -> dict[str, Any]:
    """Value, status and time of every variable."""
    found = {}
    for name in (*STATE, *VERDICT):
        node = client.get_node(f"ns=2;s={name}")
        found[name] = await node.read_data_value(raise_on_bad_status=False)
    return found


def values(found: dict[str, Any]) -> list[object]:
    return [found[name].Value.Value for name in STATE]


def states(found: dict[str, Any]) -> set[str]:
    """Statuses of the variables of the verdict."""
    return {found[name].StatusCode.name for name in VERDICT}


def test_clients_see_each_event_and_neither_write_nor_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    sink = open_sink(f"opcua:{port}")
    before = asking(port, read)
    assert values(before) == ["starting", "", 0, 0, 0]
    assert states(before) == {"BadWaitingForInitialData"}
    sink.state(BACK)
    assert states(asking(port, read)) == {"BadNoData"}
    sink.write(frame(textured(1), 3), verdict(3, 0.75), MAP)
    found = asking(port, read)
    assert values(found) == ["running", "", 0, 1, 0]
    assert states(found) == {"Good"}
    assert [found[name].Value.Value for name in VERDICT] == [True, 0.75, 0.5, 1.5, 3, "washer"]
    age = datetime.now(timezone.utc) - found["is_anomalous"].SourceTimestamp.replace(tzinfo=timezone.utc)
    assert timedelta(0) <= age < timedelta(seconds=LIMIT_S)
    sink.withheld(frame(textured(1), 4), "the image is old")
    found = asking(port, read)
    assert (values(found), states(found)) == (["running", "the image is old", 0, 1, 1], {"BadNoData"})
    sink.state(StateChange("degraded", "running", ("blurred",), "the image is blurred"))
    sink.write(frame(textured(1), 4), verdict(4, 0.75), MAP)
    found = asking(port, read)
    assert values(found) == ["degraded", "the image is blurred", 0, 2, 1]
    assert states(found) == {"UncertainSensorNotAccurate"}
    sink.state(LOST)
    found = asking(port, read)
    assert (values(found), states(found)) == (["no_signal", LOST.reason, 0, 2, 1], {"BadNoCommunication"})
    assert found["is_anomalous"].Value.Value is None
    sink.state(StateChange("paused", "no_signal", ("paused",), "the stream is paused"))
    found = asking(port, read)
    assert values(found) == ["paused", "the stream is paused", 0, 2, 1]
    assert states(found) == {"BadOutOfService"}
    sink.state(BACK)
    sink.write(frame(textured(1), 5), verdict(5, 0.25), MAP)
    assert values(asking(port, read)) == ["running", "", 1, 2, 1]
    with monkeypatch.context() as patch:
        patch.setattr("edgead.streaming.sinks.latest.VALID_S", 0.0)
        sink.tick()
    assert states(asking(port, read)) == {"BadNoData"}
    with pytest.raises(SinkError) as caught:
        open_sink(f"opcua:{port}")
    assert str(port) in caught.value.what
    for data in (b"\xff" * 300, b"GET / HTTP/1.1\r\n\r\n", b"OPNF\x10\0\0\0" + b"\xff" * 8):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
    seen, summary = subscribed(port, sink)
    assert seen == list(range(20))
    (count,) = summary.sinks
    assert (count.lost, count.problem) == (0, None)
    assert count.written >= 20
    assert not [one for one in threading.enumerate() if "opcua" in one.name]
    sink.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def subscribed(port: int, sink: Sink) -> tuple[list[int], Summary]:
    """The frames that a subscriber sees of a stream of 20; it stays while the stream ends."""
    from asyncua import ua

    seen: list[int] = []
    summaries: list[Summary] = []
    may_begin, may_end = threading.Event(), threading.Event()

    class Handler:
        def datachange_notification(self, node: object, value: int | None, data: object) -> None:
            if value is not None:
                seen.append(value)
            may_begin.set()

    def script() -> Iterator[UInt8Array]:
        for number in range(20):
            yield textured(number)
        may_end.wait(LIMIT_S)

    def stream_them() -> None:
        source = ScriptedSource(script, live=False)
        summaries.append(stream(FakeSession(SIZE), source, [sink], size=SIZE, threshold=0.5))

    async def watch(client: Any) -> None:
        subscription = await client.create_subscription(20, Handler())
        await subscription.subscribe_data_change(client.get_node("ns=2;s=frame_index"), queuesize=100)
        await asyncio.to_thread(may_begin.wait, LIMIT_S)
        streaming = asyncio.create_task(asyncio.to_thread(stream_them))
        end_s = time.monotonic() + LIMIT_S
        while len(seen) < 20 and time.monotonic() < end_s:
            await asyncio.sleep(0.02)
        for name, value in (("frame_index", 7), ("state", "running")):
            with pytest.raises(ua.UaStatusCodeError):
                await client.get_node(f"ns=2;s={name}").write_value(value)
        with pytest.raises(ua.UaStatusCodeError):
            await client.nodes.objects.add_object(2, "mine")
        may_end.set()
        await streaming

    # The client may notice that the server has hung up when it says goodbye.
    with suppress(ConnectionError, asyncio.TimeoutError):
        asking(port, watch)
    return seen, summaries[0]


@needs_openssl
def test_other_machines_need_a_login_and_encryption(tmp_path: Path) -> None:
    from asyncua import ua

    cert, key = certificate(tmp_path, "URI:urn:edgead")
    port = free_port()
    with open_sink(f"opcua://me:p%40ss@127.0.0.1:{port}/?cert={cert}&key={key}") as sink:
        assert "p%40ss" not in sink.name
        sink.write(frame(textured(1), 3), verdict(3, 0.75), MAP)
        login = {"user": "me", "password": "p@ss", "cert": cert, "key": key}
        assert values(asking(port, read, **login)) == ["starting", "", 0, 1, 0]
        for wrong in ({"password": "other"}, {"user": "you"}, {"password": ""}):
            with pytest.raises(ua.UaError):
                asking(port, read, **(login | wrong))
        with pytest.raises((ua.UaError, ConnectionError)):
            asking(port, read)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("opcua:", SinkError),
        ("opcua:0", SinkError),
        ("opcua:65536", SinkError),
        ("opcua:0.0.0.0:4840", SinkError),
        ("opcua:4840?keep=3", InputError),
        ("opcua://0.0.0.0:4840", SinkError),
        ("opcua://0.0.0.0:4840/?cert=c&key=k", SinkError),
        ("opcua://me:secret@0.0.0.0:4840", SinkError),
        ("opcua://m\udcffe:secret@0.0.0.0:4840/?cert=c&key=k", SinkError),
        ("opcua://me:secret@0.0.0.0:4840/?cert=c", SinkError),
        ("opcua://me:secret@127.0.0.1:48400/?cert=nowhere.pem&key=nowhere.pem", SinkError),
    ],
)
def test_addresses_of_servers_are_checked(uri: str, error: type[EdgeadError]) -> None:
    with pytest.raises(error) as caught:
        open_sink(uri)
    assert "secret" not in str(caught.value)
