"""The Modbus sink against a real server, and against servers that hang or answer anything."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import Summary, open_sink, open_sinks, stream
from edgead.streaming.freshness import Problem
from edgead.streaming.record import missed_record, part_withheld_record
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.state import STATES, StateChange
from edgead.types import TriggeredPart, UInt8Array
from tests.helpers.modbus_server import COILS, REGISTERS, Coils, ModbusServer, Registers
from tests.helpers.mqtt_broker import LIMIT_S, free_port
from tests.helpers.stream_parts import SIZE, ScriptedSource, frame, textured
from tests.streaming.sinks.test_mqtt import wait_until
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict

GOOD, REJECT = 100, 60


def address(port: int, areas: str = f"registers={REGISTERS}&coils={COILS}") -> str:
    return f"modbus://127.0.0.1:{port}/?{areas}"


def run(
    port: int, script: Callable[[], Iterator[UInt8Array]], stop: threading.Event | None = None
) -> Summary:
    """Stream images of a camera; dark ones are rejects."""
    session = FakeSession(SIZE, score=lambda image: float(image.min() < 80))
    sinks = open_sinks([address(port)])
    return stream(session, ScriptedSource(script, True), sinks, size=SIZE, threshold=0.5, stop=stop)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.modbus.TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr("edgead.streaming.sinks.modbus.HEARTBEAT_S", 0.05)
    monkeypatch.setattr("edgead.streaming.sinks.modbus.pause_s", lambda tries: 0.05)


def test_the_number_follows_the_triggers_and_every_state_has_a_number() -> None:
    with ModbusServer() as server, open_sink(address(server.port)) as sink:
        assert isinstance(sink, RecordSink)
        sink.state(BACK)
        sink.write(frame(textured(1)), verdict(0, 0.25), MAP)
        sink.record(part_withheld_record("cam", TriggeredPart(2, None), Problem("next_part", "too fast")))
        registers, coils = server.memory()
        assert (registers.verdict, registers.number, coils.good) == (0, 2, False)
        sink.write(frame(textured(1)), verdict(1, 0.25), MAP)
        sink.record(missed_record("cam", 5, "too fast"))
        registers, coils = server.memory()
        assert (registers.verdict, registers.number, coils.good) == (0, 8, False)
        numbers = set()
        for state in STATES:
            sink.state(StateChange(state, "running"))
            numbers.add(server.memory()[0].state)
        assert len(numbers) == len(STATES)


def test_a_controller_reads_each_verdict_and_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.modbus.HEARTBEAT_S", LIMIT_S)
    degraded = StateChange("degraded", "running", ("blurred",), "the image is blurred")
    with ModbusServer() as server:
        with open_sink(address(server.port)) as sink:
            sink.tick()
            # What the memory held before is no verdict.
            assert server.memory() == (Registers(1, 0, 0, 1, 0), Coils(False, False, False, True, False))
            sink.state(BACK)
            assert server.memory() == (Registers(2, 0, 0, 1, 0), Coils(False, False, True, True, False))
            sink.write(frame(textured(1)), verdict(0, 0.25), MAP)
            assert server.memory() == (Registers(2, 1, 1, 1, 500), Coils(False, True, True, True, True))
            sink.write(frame(textured(1)), verdict(1, 0.75), MAP)
            assert server.memory() == (Registers(2, 2, 2, 1, 1500), Coils(True, False, True, True, False))
            sink.withheld(frame(textured(1)), "the image is old")
            assert server.memory() == (Registers(2, 0, 3, 1, 0), Coils(False, False, True, True, True))
            sink.write(frame(textured(1)), verdict(2, 1e6), MAP)
            assert server.memory() == (Registers(2, 2, 4, 1, 65535), Coils(True, False, True, True, False))
            sink.state(degraded)
            assert server.memory() == (Registers(3, 2, 4, 1, 65535), Coils(True, False, True, True, False))
            sink.state(LOST)
            assert server.memory() == (Registers(4, 0, 4, 1, 0), Coils(False, False, False, True, False))
            sink.state(BACK)
            assert server.memory() == (Registers(2, 0, 4, 1, 0), Coils(False, False, True, True, False))
            sink.write(frame(textured(1)), verdict(3, 0.25), MAP)
        assert server.memory() == (Registers(0, 0, 5, 1, 0), Coils(False, False, False, True, True))
        sink.close()


def test_the_heartbeat_follows_the_clock_and_not_the_verdicts() -> None:
    with ModbusServer() as server, open_sink(address(server.port)) as sink:
        for number in range(30):
            sink.write(frame(textured(1)), verdict(number), MAP)
        assert server.memory()[0].heartbeat < 30
        for _ in range(3):
            beat = server.memory()[0].heartbeat
            wait_until(lambda beat=beat: sink.tick() or server.memory()[0].heartbeat > beat)
            assert server.memory()[0].heartbeat == beat + 1
            assert server.memory()[1].heartbeat == bool(server.memory()[0].heartbeat & 1)


def test_numbers_begin_again_at_zero_where_a_register_ends() -> None:
    with ModbusServer() as server, open_sink(address(server.port)) as sink:
        sink.latest.good = 65535  # type: ignore[attr-defined]
        sink.write(frame(textured(1)), verdict(), MAP)
        assert server.memory()[0].number == 0
        assert server.memory()[0].verdict == 1


def test_a_verdict_ends_if_no_other_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.latest.VALID_S", 0.1)

    def script() -> Iterator[UInt8Array]:
        yield textured(GOOD)
        # The camera, the model or the loop hangs.
        wait_until(lambda: server.memory()[0].verdict == 0 and server.memory()[0].number == 1)
        beats = server.memory()[0].heartbeat
        wait_until(lambda: server.memory()[0].heartbeat > beats + 2)

    with ModbusServer() as server:
        run(server.port, script)
    assert next(one.verdict for one in server.registers if one.number == 1) == 1
    assert any(one.good for one in server.coils)


def test_the_newest_verdict_reaches_a_controller_that_was_away() -> None:
    with ModbusServer() as server:

        def script() -> Iterator[UInt8Array]:
            yield textured(GOOD)
            wait_until(lambda: server.memory()[0].verdict == 1)
            server.stop()
            for number in range(40):
                yield textured(GOOD + number)
                time.sleep(0.005)
            yield textured(REJECT)
            server.start()
            # Nothing new happens, and still the state is written.
            wait_until(lambda: server.memory()[0].verdict == 2)

        summary = run(server.port, script)
        (count,) = summary.sinks
        # None of the old verdicts follows.
        assert [one.verdict for one in server.registers if one.verdict] == sorted(
            one.verdict for one in server.registers if one.verdict
        )
        assert server.memory()[0].state == 0
    assert count.written + count.lost >= summary.frames_scored
    assert count.lost > 0
    assert count.problem is None


def test_a_slow_controller_gets_the_newest_and_the_rest_is_replaced() -> None:
    with ModbusServer() as server:
        real, busy, may_go_on = server._seen, threading.Event(), threading.Event()

        def seen(sending: bool, pdu: object) -> object:
            busy.set()
            may_go_on.wait(LIMIT_S)
            return real(sending, pdu)

        server._server.trace_pdu = seen

        def script() -> Iterator[UInt8Array]:
            assert busy.wait(LIMIT_S)
            for number in range(50):
                yield textured(GOOD + number)
                time.sleep(0.003)
            may_go_on.set()

        summary = run(server.port, script)
        (count,) = summary.sinks
        # The last verdict is there, and no backlog comes before it.
        assert server.memory()[0].number == summary.frames_scored
        shown = {one.number for one in server.registers}
    assert len(shown) < 10
    assert count.replaced >= summary.frames_scored - len(shown)
    assert (count.written > 0, count.lost) == (True, 0)
    assert count.problem is None


Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A server that gets each request and does anything with it; yields its port."""
    ends = threading.Event()

    def serve() -> None:
        while not ends.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.05)
                while not ends.is_set():
                    try:
                        request = connection.recv(1000)
                        if not request:
                            break
                        answer(connection, request)
                    except TimeoutError:
                        continue
                    except OSError:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ends.set()
            with socket.create_connection(listener.getsockname()):
                thread.join(LIMIT_S)


def drip(connection: socket.socket, request: bytes) -> None:
    for byte in request[:4] + b"\0\xff" + bytes(255):
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def refuse(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request[:4] + b"\0\3" + request[6:7] + bytes([request[7] | 0x80, 2]))


def other_function(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request[:4] + b"\0\5" + request[6:7] + b"\3\2\0\0")


def other_address(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request[:4] + b"\0\6" + request[6:8] + struct.pack(">HH", 1, 5))


ANSWERS: dict[str, Answer] = {
    "hang": lambda connection, request: None,
    "garbage": lambda connection, request: connection.sendall(b"\xff" * 300),
    "text": lambda connection, request: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "drip": drip,
    "refuse": refuse,
    "other function": other_function,
    "other address": other_address,
    "hang up": lambda connection, request: connection.shutdown(socket.SHUT_RDWR),
    "another's answer": lambda connection, request: connection.sendall(b"\0\7" + request[2:12]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_does_not_confirm_is_a_failing_sink_and_holds_up_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.modbus.TIMEOUT_S", 0.1)
    stop = threading.Event()
    with answering(ANSWERS[name]) as port:

        def script() -> Iterator[UInt8Array]:
            for number in range(200):
                if len(seen) > 30:
                    stop.set()
                seen.append(number)
                yield textured(GOOD + number % 100)
                time.sleep(0.003)

        seen: list[int] = []
        summary = run(port, script, stop)
        wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("edgead-modbus")])
    (count,) = summary.sinks
    assert count.written == 0
    assert count.lost >= summary.frames_scored
    assert count.problem is not None
    assert summary.frames_scored >= 5


def test_a_controller_that_is_away_ends_the_stream_of_a_file_and_not_the_one_of_a_camera() -> None:
    uri = address(free_port())
    source = ScriptedSource(lambda: (textured(number) for number in range(3)), live=False)
    with pytest.raises(SinkError) as caught:
        stream(FakeSession(SIZE), source, open_sinks([uri]), size=SIZE, threshold=0.5)
    assert uri.split("/")[2] in caught.value.what


def test_one_block_alone_is_written() -> None:
    with ModbusServer() as server:
        for area in (f"registers={REGISTERS}", f"coils={COILS}"):
            with open_sink(address(server.port, area)) as sink:
                sink.write(frame(textured(1)), verdict(), MAP)
        assert [len(server.registers), len(server.coils)] == [2, 2]


def test_an_address_that_the_controller_does_not_have_is_named() -> None:
    with ModbusServer() as server, open_sink(address(server.port, "registers=7")) as sink:
        with pytest.raises(SinkError) as caught:
            sink.write(frame(textured(1)), verdict(), MAP)
        assert "registers 7 to 11" in caught.value.what
        with pytest.raises(SinkError):
            sink.close()


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("modbus:", SinkError),
        ("modbus:plc?coils=1", SinkError),
        ("modbus:///?coils=1", SinkError),
        ("modbus://plc", SinkError),
        ("modbus://plc/?unit=1", SinkError),
        ("modbus://plc/line?coils=1", SinkError),
        ("modbus://me:secret@plc/?coils=1", SinkError),
        ("modbus://plc:99999/?coils=1", SinkError),
        ("modbus://my..plc/?coils=1", SinkError),
        ("modbus://plc/?coils=65532", InputError),
        ("modbus://plc/?registers=-1", InputError),
        ("modbus://plc/?coils=1&unit=256", InputError),
        ("modbus://plc/?spool=s", InputError),
    ],
)
def test_addresses_of_controllers_are_checked(uri: str, error: type[EdgeadError]) -> None:
    with pytest.raises(error) as caught:
        open_sink(uri)
    assert "secret" not in str(caught.value)


def test_two_sinks_on_one_unit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError):
        open_sinks(["modbus://plc/?coils=1", f"jsonl:{tmp_path}/out", "modbus://plc:502/?registers=9"])
    assert os.listdir(tmp_path) == []
