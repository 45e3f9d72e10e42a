"""The figures for Prometheus, read over HTTP and parsed by its library."""

import socket
import urllib.error
import urllib.request
from contextlib import ExitStack
from http.client import HTTPException

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgead.errors import InputError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, stream
from edgead.streaming.record import missed_record
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.web_server import MOST_CONNECTIONS
from tests.helpers.mqtt_broker import free_port
from tests.helpers.stream_parts import SIZE, Record, ScriptedSource, frame, textured
from tests.helpers.trigger_parts import wait_until
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict


def fetched(port: int) -> dict[tuple[str, ...], float]:
    """Every value by its name and the sorted values of its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_follow_the_events() -> None:
    port = free_port()
    with open_sink(f"prometheus:{port}") as sink:
        for index, score in enumerate((0.25, 0.75, 0.125)):
            sink.write(frame(textured(1), index), verdict(index, score), MAP)
        sink.withheld(frame(textured(1), 3), "the map is not finite")
        assert isinstance(sink, RecordSink)
        sink.record(missed_record("cam", 5, "too fast"))
        sink.state(LOST)
        figures = fetched(port)
        assert figures["edgead_frames_total", "good", "washer"] == 2
        assert figures["edgead_frames_total", "reject", "washer"] == 1
        assert figures["edgead_withheld_frames_total",] == 1
        assert figures["edgead_missed_triggers_total",] == 5
        assert figures["edgead_latency_seconds_count",] == 3
        assert figures["edgead_latency_seconds_sum",] == pytest.approx(3 * 12.346e-3)
        assert figures["edgead_share_of_threshold",] == 0.25
        assert figures["edgead_state", "no_signal"] == 1
        assert [key[1] for key in figures if key[0] == "edgead_cause"] == list(LOST.causes)
        assert figures["edgead_state", "running"] == 0
        sink.state(BACK)
        assert fetched(port)["edgead_state", "running"] == 1
        assert not [key for key in fetched(port) if key[0] == "edgead_cause"]
    sink.close()
    with pytest.raises(urllib.error.URLError):
        fetched(port)


def test_the_counts_of_every_sink_are_there() -> None:
    port = free_port()
    figures: dict[tuple[str, ...], float] = {}
    other = Record()
    sink = open_sink(f"prometheus:127.0.0.1:{port}")

    class Last(Record):
        """Fetches the figures while the stream runs, after all sinks before it."""

        def close(self) -> None:
            figures.update(fetched(port))

    session, source = FakeSession(SIZE), ScriptedSource(lambda: iter([textured(1), textured(2)]), live=False)
    stream(session, source, [other, sink, Last()], size=SIZE, threshold=0.5)
    assert figures["edgead_sink_written_total", "Last"] == 2
    assert figures["edgead_sink_lost_total", "Record"] == 0
    assert figures["edgead_sink_failing", f"prometheus:127.0.0.1:{port}"] == 0


def test_clients_that_send_nothing_hold_up_no_other_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgead.streaming.web_server.CONNECTION_S", 0.3)
    port = free_port()
    with open_sink(f"prometheus:{port}"), ExitStack() as clients:
        for _ in range(3 * MOST_CONNECTIONS):
            clients.enter_context(socket.create_connection(("127.0.0.1", port)))

        def works() -> bool:
            try:
                return bool(fetched(port))
            except (OSError, HTTPException):
                return False

        wait_until(works)


def test_a_port_in_use_and_bad_addresses_are_refused() -> None:
    port = free_port()
    with open_sink(f"prometheus:{port}"), pytest.raises(SinkError) as caught:
        open_sink(f"prometheus:{port}")
    assert str(port) in caught.value.what
    for target in ("", "0", "65536", "host", "a/b:9000", "http://host:9000", "\0:9000", "a..b:9000"):
        with pytest.raises(SinkError):
            open_sink(f"prometheus:{target}")
    with pytest.raises(InputError):
        open_sink(f"prometheus:{port}?keep=3")
