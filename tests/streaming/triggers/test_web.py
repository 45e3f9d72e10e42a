"""The web server for triggers, with a real client and raw sockets."""

import http.client
import json
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from edgead.errors import InputError, TriggerError
from edgead.streaming import open_trigger
from edgead.streaming.parts import MOST_PENDING
from edgead.streaming.triggers import WebTrigger
from edgead.streaming.triggers.base import MOST_ID_BYTES
from edgead.streaming.web_server import MOST_CONNECTIONS
from tests.helpers.trigger_parts import LIMIT_S, Announced, started, wait_until


def port_of(trigger: object) -> int:
    assert isinstance(trigger, WebTrigger)
    return trigger.port


def request(
    trigger: object, path: str, body: bytes = b"", method: str = "POST", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(trigger), timeout=LIMIT_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_announces_a_part_and_answers_its_number() -> None:
    with started("http:0") as (trigger, line):
        before_ns = time.monotonic_ns()
        answers = [request(trigger, "/trigger", text) for text in (b"", b" S1\n", "Ü\x1b".encode())]
        assert [(status, json.loads(body)) for status, body in answers] == [
            (200, {"trigger": number}) for number in (1, 2, 3)
        ]
        parts = line.take(3)
    assert line.ids == [None, "S1", "Ü\\x1b"]
    assert before_ns < parts[0].triggered_ns < parts[1].triggered_ns < parts[2].triggered_ns


def test_a_request_pauses_and_resumes() -> None:
    with started("http:127.0.0.1:0") as (trigger, line):
        assert json.loads(request(trigger, "/pause")[1]) == {"paused": True}
        assert line.is_paused
        assert json.loads(request(trigger, "/resume")[1]) == {"paused": False}
        assert not line.is_paused


def test_other_requests_are_refused() -> None:
    with started("http:0") as (trigger, line):
        assert request(trigger, "/other")[0] == 404
        assert request(trigger, "/trigger", method="GET")[0] == 501
        assert request(trigger, "/trigger", b"x" * (MOST_ID_BYTES + 1))[0] == 413
        # A page in a browser of this machine must not trigger.
        assert request(trigger, "/trigger", Origin="https://elsewhere")[0] == 403
        for length in ("-1", "x", "9" * 10):
            assert request(trigger, "/trigger", **{"Content-Length": length})[0] == 411
        assert request(trigger, "/trigger", **{"Transfer-Encoding": "chunked"})[0] == 411
        assert line.poll() == []


def test_a_trigger_that_finds_no_place_is_refused() -> None:
    with started("http:0") as (trigger, line):
        assert line.parts is not None
        for _ in range(MOST_PENDING):
            line.parts.add()
        assert request(trigger, "/trigger")[0] == 503
        assert line.parts.take_missed() == 1


def test_clients_that_send_nothing_or_hang_up_block_nobody_for_long() -> None:
    with started("http:0") as (trigger, line):
        place = ("127.0.0.1", port_of(trigger))
        idle = [socket.create_connection(place) for _ in range(3 * MOST_CONNECTIONS)]
        # One of them sends a byte now and then, so that no single read takes long.
        stop = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.05):
                    idle[0].send(b"P")

        thread = threading.Thread(target=drip)
        thread.start()

        def works() -> bool:
            try:
                return request(trigger, "/trigger", b"after")[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(works)
        wait_until(lambda: not thread.is_alive())
        stop.set()
        with socket.create_connection(place) as half:
            half.sendall(b"POST /trigger HTTP/1.0\r\nContent-Length: 5\r\n\r\nab")
        assert request(trigger, "/trigger", b"last")[0] == 200
        wait_until(lambda: line.poll() and line.ids[-1] == "last")
        assert "ab" not in line.ids
        for each in idle:
            each.close()


def test_requests_of_any_content_end_nothing() -> None:
    rng = np.random.default_rng(3)
    good = b"POST /trigger HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\nS1"
    with started("http:0") as (trigger, line):
        for number in range(60):
            data = bytearray(good)
            for place in rng.integers(0, len(data), 1 + number % 8):
                data[place] = rng.integers(0, 256)
            with socket.create_connection(("127.0.0.1", port_of(trigger)), timeout=LIMIT_S) as client:
                client.sendall(data if number % 4 else rng.bytes(3000) + b"\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    client.recv(2**16)
        assert request(trigger, "/trigger", b"last")[0] == 200
        wait_until(lambda: line.poll() and line.ids[-1] == "last")
    assert all(len(each or "") <= 128 and (each or "").isprintable() for each in line.ids)


@pytest.mark.parametrize("target", ["", "x", "70000", "host/8000", "8000?a=b", "127.0.0.1:"])
def test_an_address_that_is_none_is_refused(target: str) -> None:
    with pytest.raises((TriggerError, InputError)):
        open_trigger(f"http:{target}")


def test_a_port_in_use_is_refused() -> None:
    with started("http:0") as (trigger, _), pytest.raises(TriggerError):
        open_trigger(f"http:{port_of(trigger)}")
    with open_trigger("http:0") as first, open_trigger(f"http:{port_of(first)}") as second:
        first.start(Announced())
        with pytest.raises(TriggerError):
            second.start(Announced())


def test_a_request_from_before_the_start_is_refused() -> None:
    # Its part has passed when the stream begins.
    with open_trigger("http:0") as trigger, pytest.raises(ConnectionRefusedError):
        request(trigger, "/trigger")


def test_a_server_that_was_not_started_can_be_closed_and_one_that_was_twice() -> None:
    open_trigger("http:0").close()
    trigger = open_trigger("http:0")
    trigger.start(Announced())
    trigger.close()
    trigger.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(trigger)))
