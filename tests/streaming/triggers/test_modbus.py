"""Triggers of a real Modbus/TCP server."""

import socket
import threading
from contextlib import suppress

import pytest

from edgead.errors import EdgeadError, InputError, TriggerError
from edgead.streaming import open_trigger
from edgead.streaming.triggers import modbus
from tests.helpers.modbus_server import COILS, REGISTERS, ModbusServer
from tests.helpers.mqtt_broker import free_port
from tests.helpers.trigger_parts import started, wait_until

# A coil that is set after the start, and a discrete input that is not.
COIL, INPUT, COUNTER = COILS + 1, 0, REGISTERS


@pytest.mark.parametrize(("kind", "function", "number"), [("coil", 5, COIL), ("input", 2, INPUT)])
def test_each_rise_of_a_bit_is_a_part(kind: str, function: int, number: int) -> None:
    with (
        ModbusServer() as controller,
        started(f"modbus://127.0.0.1:{controller.port}/?{kind}={number}&poll_ms=2") as (_, line),
    ):
        # It is not known since when the coil is set, so it is no part.
        controller.wait_for_answers(2)
        for _ in range(3):
            controller.set(function, number, 0)
            controller.set(function, number, 1)
            controller.set(function, number, 1)
        parts = line.take(3)
        assert line.trouble is None
    assert [part.problem for part in parts] == [None] * 3


def test_each_step_of_a_counter_is_a_part_also_across_its_end_and_an_outage() -> None:
    controller = ModbusServer()
    controller.at_start[0] = 65534
    with (
        controller,
        started(f"modbus://127.0.0.1:{controller.port}/?counter={COUNTER}&poll_ms=2") as (_, line),
    ):
        controller.wait_for_answers(2)
        controller.set(6, COUNTER, 65535)
        controller.set(6, COUNTER, 2)
        line.take(4)
        controller.stop()
        wait_until(lambda: line.trouble)
        controller.at_start[0] = 5
        controller.start()
        parts = line.take(7)
        wait_until(lambda: line.trouble is None)
        controller.set(6, COUNTER, 6)
        line.take(8)
        # A counter that starts anew is no part.
        controller.set(6, COUNTER, 0)
        controller.set(6, COUNTER, 1)
        line.take(9)
    # The parts that came during the outage have passed.
    assert [part.problem is None for part in parts] == [True] * 4 + [False] * 3 + [True] * 2


def test_a_server_without_the_value_is_reported() -> None:
    with (
        ModbusServer() as controller,
        started(f"modbus://127.0.0.1:{controller.port}/?counter=900&unit=1") as (_, line),
    ):
        wait_until(lambda: line.trouble and "exception" in line.trouble)


def test_the_end_does_not_wait_for_a_server_that_is_away() -> None:
    with started(f"modbus://127.0.0.1:{free_port()}/?coil=0") as (_, line):
        wait_until(lambda: line.trouble)
    wait_until(lambda: "edgead-trigger" not in {one.name for one in threading.enumerate()})


@pytest.mark.parametrize("answer", [b"", b"\xff" * 260, bytes(9), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_answers_anything_is_reported_and_not_believed(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modbus, "_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        request = client.recv(260)
                        # The answer has the identifiers of the request, or nothing of it.
                        client.sendall(request[:4] + answer if answer.startswith(b"\xff") else answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with started(f"modbus://127.0.0.1:{server.getsockname()[1]}/?coil=0") as (_, line):
            wait_until(lambda: line.trouble)
            assert line.poll() == []
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("modbus:", TriggerError),
        ("modbus://host", TriggerError),
        ("modbus://host/?unit=1", TriggerError),
        ("modbus://host/?coil=1&input=1", TriggerError),
        ("modbus://host/path?coil=1", TriggerError),
        ("modbus://user:password@host/?coil=1", TriggerError),
        ("modbus:///?coil=1", TriggerError),
        ("modbus://host:99999/?coil=1", TriggerError),
        ("modbus://host/?coil=65536", InputError),
        ("modbus://host/?coil=1&unit=256", InputError),
        ("modbus://host/?coil=1&poll_ms=0", InputError),
        ("modbus://host/?registers=1", InputError),
    ],
)
def test_an_address_that_is_not_usable_is_refused(uri: str, kind: type[EdgeadError]) -> None:
    with pytest.raises(kind) as caught:
        open_trigger(uri)
    assert "password" not in str(caught.value)
