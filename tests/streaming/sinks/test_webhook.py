"""The webhook sink against a real web server."""

import base64
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_sinks, stream
from edgead.types import UInt8Array
from tests.helpers.mqtt_broker import LIMIT_S
from tests.helpers.stream_parts import SIZE, ScriptedSource, frame, textured
from tests.streaming.sinks.test_mqtt import wait_until
from tests.streaming.test_sinks import MAP, verdict


class Hook:
    """A server that takes records.

    Attributes:
        answer: What to do with the next requests: a status, "hang", "drip", "drop" or "garbage".
        taken: Every record that was confirmed, once: one that comes again has a number that is not greater.
        headers: Headers of these requests.
        seen: Number of requests.
        delay_s: Time that each answer takes, in seconds.
        hangs_up: Whether each connection ends after its answer, without an announcement.
    """

    def __init__(self) -> None:
        self.answer: int | str = 200
        self.taken: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.seen = 0
        self.delay_s = 0.0
        self.hangs_up = False
        self.goes_on = threading.Event()
        self.uri = ""


@contextmanager
def serving() -> Iterator[Hook]:
    hook = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.seen += 1
            answer = hook.answer
            if answer == "hang":
                hook.goes_on.wait(LIMIT_S)
            if answer == "garbage":
                self.wfile.write(b"\xff\xfe\0 what?\r\n\r\n")
            with suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " * (answer == "drip"))
                while answer == "drip" and not hook.goes_on.wait(0.05):
                    self.wfile.write(b"y")
            if isinstance(answer, str):
                self.close_connection = True
                return
            if answer < 300 and record["number"] > (hook.taken[-1]["number"] if hook.taken else 0):
                hook.taken.append(record)
                hook.headers.append(self.headers)
            time.sleep(hook.delay_s)
            self.close_connection = hook.hangs_up
            self.send_response(answer)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.uri = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        hook.goes_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sinks.webhook.TIMEOUT_S", 0.3)
    monkeypatch.setattr("edgead.streaming.sinks.webhook.RETRY_MAX_S", 0.05)
    monkeypatch.setattr("edgead.streaming.sinks.webhook.RETRY_MIN_S", 0.05)


def test_every_record_arrives_in_order_although_the_server_fails_and_hangs(tmp_path: Path) -> None:
    with serving() as hook:

        def after(answer: int | str) -> Callable[[], None]:
            """Let the server fail until it has done so twice."""

            def fail() -> None:
                hook.answer, seen = answer, hook.seen
                wait_until(lambda: hook.seen >= seen + 2)

            return fail

        plan = {
            20: after(500),
            40: after("hang"),
            60: after("drop"),
            70: after("drip"),
            80: after("garbage"),
            90: after(404),
        }

        def script() -> Iterator[UInt8Array]:
            for number in range(120):
                hook.answer = 200
                yield textured(number)
                plan.get(number, lambda: None)()
            hook.answer = 200
            wait_until(lambda: len(hook.taken) > 110)

        sinks = open_sinks([f"webhook:http://{hook.uri}/in?line=7#spool={tmp_path}/spool"])
        session = FakeSession(SIZE, score=1.0)
        summary = stream(session, ScriptedSource(script, False), sinks, size=SIZE, threshold=0.5)
        verdicts = [record["frame_index"] for record in hook.taken if record["event"] == "verdict"]
        assert verdicts == list(range(120))
        # Changes of the state are records, too.
        assert [record["number"] for record in hook.taken] == list(range(1, len(hook.taken) + 1))
        keys = [header["Idempotency-Key"] for header in hook.headers]
        assert keys == [f"{record['spool']}-{record['number']}" for record in hook.taken]
    (count,) = summary.sinks
    assert (count.written, count.lost, count.problem) == (len(hook.taken), 0, None)


def test_a_record_whose_confirmation_comes_too_late_comes_again_with_its_number(tmp_path: Path) -> None:
    with serving() as hook, open_sink(f"webhook:http://{hook.uri}#spool={tmp_path}/spool") as sink:
        hook.delay_s = 1.0
        sink.write(frame(textured(1), 0), verdict(0), MAP)
        wait_until(lambda: hook.seen >= 2)
        hook.delay_s = 0.0
        sink.write(frame(textured(1), 1), verdict(1), MAP)
        wait_until(lambda: len(hook.taken) == 2)
    assert [record["frame_index"] for record in hook.taken] == [0, 1]


def test_records_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    with serving() as hook:
        hook.answer = 503
        uri = f"webhook:http://me:secret@{hook.uri}#spool={tmp_path}/spool"
        with open_sink(uri) as sink:
            for index in range(3):
                sink.write(frame(textured(1), index), verdict(index), MAP)
            wait_until(lambda: hook.seen > 2)
        assert "503" in str(sink.problem())
        assert "secret" not in sink.name
        hook.answer = 202
        with open_sink(uri) as sink:
            wait_until(lambda: len(hook.taken) == 3)
        assert sink.problem() is None
    assert [record["frame_index"] for record in hook.taken] == [0, 1, 2]
    assert hook.headers[0]["Authorization"] == f"Basic {base64.b64encode(b'me:secret').decode()}"


def test_the_end_waits_for_a_slow_server_as_long_as_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.delivery.STUCK_S", 1.0)
    monkeypatch.setattr("edgead.streaming.sinks.stored.CLOSE_S", 0.1)
    monkeypatch.setattr("edgead.streaming.sinks.stored.ANSWER_S", LIMIT_S)
    monkeypatch.setattr("edgead.streaming.sinks.webhook.TIMEOUT_S", LIMIT_S)
    with serving() as hook:
        hook.delay_s = 0.3
        sinks = open_sinks([f"webhook:http://{hook.uri}#spool={tmp_path}/spool"])
        source = ScriptedSource(lambda: (textured(number) for number in range(6)), False)
        summary = stream(FakeSession(SIZE, score=1.0), source, sinks, size=SIZE, threshold=0.5)
        assert [record["frame_index"] for record in hook.taken[2:-1]] == list(range(6))
    assert summary.sinks[0].problem is None


def test_a_connection_that_the_server_ended_is_opened_again_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as hook:
        hook.hangs_up = True
        with open_sink(f"webhook:http://{hook.uri}#spool={tmp_path}/spool") as sink:
            for index in range(3):
                sink.write(frame(textured(1), index), verdict(index), MAP)
                wait_until(lambda: not len(sink._spool))  # type: ignore[attr-defined]
    assert [record["frame_index"] for record in hook.taken] == [0, 1, 2]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("webhook:", SinkError),
        ("webhook:http://host/in", SinkError),
        ("webhook:host/in#spool=s", SinkError),
        ("webhook:ftp://host/in#spool=s", SinkError),
        ("webhook:http:///in#spool=s", EdgeadError),
        ("webhook:http://host:99999/in#spool=s", EdgeadError),
        ("webhook:http://my..host/in#spool=s", SinkError),
        ("webhook:http://m\udcffe:secret@host/in#spool=s", SinkError),
        ("webhook:http://host/in#spool=s&keep=0", InputError),
        ("webhook:http://host/in#spool=s&fps=2", InputError),
        ("webhook:https://host/in#spool=s&ca=nowhere.pem", SinkError),
        ("webhook:http://host/in#spool=nowhere/s", EdgeadError),
    ],
)
def test_addresses_of_webhooks_are_checked(
    uri: str, error: type[EdgeadError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        open_sink(uri)
    assert list(tmp_path.iterdir()) == []
