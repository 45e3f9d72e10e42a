"""The MQTT sink against a real broker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgead.errors import EdgeadError, InputError, SinkError
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_sinks, stream
from edgead.streaming.record import state_record
from edgead.streaming.sinks import Sink
from edgead.streaming.sinks.mqtt import Mqtt
from edgead.types import UInt8Array
from tests.helpers.certificates import certificate, needs_openssl
from tests.helpers.mqtt_broker import LIMIT_S, Broker, Subscriber, needs_broker
from tests.helpers.stream_parts import SIZE, ScriptedSource, frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict


def wait_until(condition: Callable[[], bool], sink: Sink | None = None) -> None:
    """Wait for a condition, and call `tick` of a sink meanwhile."""
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if sink is not None:
            sink.tick()
        assert time.monotonic() < end_s, "the condition does not become true"
        time.sleep(0.02)


@needs_broker
def test_every_reject_arrives_in_order_although_the_broker_is_away_for_a_while(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    with broker, Subscriber(broker, "line/#") as subscriber:
        given = []

        def script() -> Iterator[UInt8Array]:
            for number in range(300):
                if number == 60:
                    wait_until(lambda: len(subscriber.events()) > 20)
                    broker.stop()
                if number == 200:
                    broker.start()
                if number == 290:
                    wait_until(lambda: len(subscriber.events()) > 250)
                given.append(number)
                yield textured(number % 200)
                time.sleep(0.001)

        sinks = open_sinks([f"mqtt://127.0.0.1:{broker.port}/line/7?spool={tmp_path}/spool"])
        session = FakeSession(SIZE, score=1.0)
        summary = stream(session, ScriptedSource(script, False), sinks, size=SIZE, threshold=0.5)
        wait_until(lambda: len(subscriber.events()) >= 303 and subscriber.states()[-1] == "stopped")
    events = [event for event in subscriber.events() if event["event"] == "verdict"]
    assert [event["frame_index"] for event in events] == given
    assert all(event["is_anomalous"] for event in events)
    # Changes of the state are events, too.
    numbers = [event["number"] for event in subscriber.events()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert (summary.sinks[0].written, summary.sinks[0].lost) == (len(numbers), 0)


@needs_broker
def test_a_stream_starts_without_its_broker_and_the_next_one_sends_what_waits(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    uri = f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool"
    with open_sink(uri) as sink:
        for index in range(5):
            sink.write(frame(textured(1), index), verdict(index), MAP)
        assert sink.problem() is not None
    assert "5 records" in str(sink.problem())
    with broker, Subscriber(broker, "line/#") as subscriber:
        with open_sink(uri) as sink:
            sink.write(frame(textured(1), 5), verdict(5), MAP)
            wait_until(lambda: len(subscriber.events()) == 6, sink)
        assert sink.problem() is None
        assert [event["frame_index"] for event in subscriber.events()] == list(range(6))
        wait_until(lambda: subscriber.states() == ["starting", "stopped"])


@needs_broker
def test_records_that_come_during_a_reconnection_do_not_overtake_repeated_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path / "broker")
    with broker, Subscriber(broker, "line/#") as subscriber:
        with open_sink(f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool") as sink:
            assert isinstance(sink, Mqtt)
            wait_until(lambda: sink.problem() is None, sink)
            broker.kill_while(
                lambda: [sink.write(frame(textured(1), one), verdict(one), MAP) for one in range(5)]
            )
            publish_state, is_back, go_on = sink._publish_state, threading.Event(), threading.Event()

            def slowly() -> None:
                # The library reports the connection before it repeats the messages without a confirmation.
                publish_state()
                is_back.set()
                assert go_on.wait(LIMIT_S)

            monkeypatch.setattr(sink, "_publish_state", slowly)
            broker.start()
            assert is_back.wait(LIMIT_S)
            for index in range(5, 10):
                sink.write(frame(textured(1), index), verdict(index), MAP)
            go_on.set()
            wait_until(lambda: len(subscriber.events()) == 10, sink)
        numbers = [message["number"] for topic, message in subscriber.messages if topic == "line/events"]
    assert numbers == sorted(numbers)


@needs_broker
def test_the_state_of_the_signal_is_retained(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    with broker, open_sink(f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool") as sink:
        sink.state(LOST)
        # Whatever comes before it reaches the broker with this one.
        wait_until(lambda: sink.problem() is None and not len(sink._spool), sink)  # type: ignore[attr-defined]
        with Subscriber(broker, "line/state") as late:
            wait_until(lambda: late.states() == ["no_signal"])
            assert late.messages[0][1]["reason"] == LOST.reason
            sink.state(BACK)
            wait_until(lambda: late.states() == ["no_signal", "running"])


@needs_broker
def test_a_receiver_that_comes_later_sees_the_states_of_all_cameras(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    with broker, open_sink(f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool") as sink:
        assert isinstance(sink, Mqtt)
        for camera, change in (("left", LOST), ("right", BACK)):
            sink.record(state_record(change).of_camera(camera))
        wait_until(lambda: sink.problem() is None and not len(sink._spool), sink)
        with Subscriber(broker, "line/state") as late:
            wait_until(lambda: bool(late.messages))
            ((_, message),) = late.messages
    assert message["cameras"] == {"left": "no_signal", "right": "running"}


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from edgead.streaming import open_sink
sink = open_sink(sys.argv[2])
while sink.problem() is not None:
    time.sleep(0.01)
print("connected", flush=True)
time.sleep(600)
"""


@needs_broker
def test_a_stream_that_dies_leaves_its_last_will(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with Broker(tmp_path / "broker") as broker, Subscriber(broker, "line/state") as subscriber:
        uri = f"mqtt://127.0.0.1:{broker.port}/line?spool={tmp_path}/spool"
        command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[3]), uri]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            # A connection comes before its first message.
            wait_until(lambda: subscriber.states() == ["starting"])
            process.send_signal(signal.SIGKILL)
        wait_until(lambda: subscriber.states() == ["starting", "gone"])


UNTRUSTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from edgead.streaming import open_sink
with open_sink(sys.argv[2]) as sink:
    while sink.problem() is not None and not sink._is_reported:
        time.sleep(0.01)
    print("connected" if sink.problem() is None else "refused", flush=True)
"""


@needs_broker
@needs_openssl
def test_tls_checks_the_certificate_and_a_wrong_password_is_a_problem(tmp_path: Path) -> None:
    certificate(tmp_path)
    (tmp_path / "users").touch(0o600)
    subprocess.run(
        ["mosquitto_passwd", "-b", tmp_path / "users", "me", "p@ss/w"], check=True, capture_output=True
    )
    extra = (
        f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem\n"
        f"allow_anonymous false\npassword_file {tmp_path}/users"
    )
    with Broker(tmp_path / "broker", extra) as broker:
        place = f"127.0.0.1:{broker.port}/line"
        ca = f"&ca={tmp_path}/cert.pem"
        with open_sink(f"mqtts://me:p%40ss%2Fw@{place}?spool={tmp_path}/0{ca}") as sink:
            sink.write(frame(textured(1)), verdict(), MAP)
            wait_until(lambda: sink.problem() is None)
        assert sink.problem() is None
        with open_sink(f"mqtts://me:wrong@{place}?spool={tmp_path}/1{ca}") as sink:
            wait_until(lambda: sink._is_reported)  # type: ignore[attr-defined]
            sink.write(frame(textured(1)), verdict(), MAP)
        assert "1 records" in str(sink.problem())
        assert "wrong" not in sink.name
        # In another process, because the library leaves the socket of an untrusted broker to the garbage collector.
        uri = f"mqtts://me:p%40ss%2Fw@{place}?spool={tmp_path}/2"
        command = [sys.executable, "-c", UNTRUSTED, str(Path(__file__).parents[3]), uri]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("mqtt:", SinkError),
        ("mqtt:broker/line?spool=s", SinkError),
        ("mqtt:///line?spool=s", SinkError),
        ("mqtt://broker/line", SinkError),
        ("mqtt://broker?spool=s", SinkError),
        ("mqtt://broker/a/+?spool=s", SinkError),
        ("mqtt://broker/%23?spool=s", SinkError),
        ("mqtt://broker/%00?spool=s", SinkError),
        ("mqtt://broker/%ff%fe?spool=s", SinkError),
        ("mqtt://broker:99999/line?spool=s", SinkError),
        ("mqtt://my..broker/line?spool=s", SinkError),
        ("mqtt://me:secr\udcffet@broker/line?spool=s", SinkError),
        ("mqtt://broker/line?spool=s&qos=2", InputError),
        ("mqtt://broker/line?spool=s&keep=0", InputError),
        ("mqtt://broker/line?spool=s&ca=cert.pem", SinkError),
        ("mqtts://broker/line?spool=s&ca=nowhere.pem", SinkError),
        ("mqtts://broker/line?spool=s&ca=a%00b.pem", SinkError),
        ("mqtt://broker/line?spool=nowhere/s", EdgeadError),
    ],
)
def test_addresses_of_brokers_are_checked(
    uri: str, error: type[EdgeadError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        open_sink(uri)
    assert list(tmp_path.iterdir()) == []
