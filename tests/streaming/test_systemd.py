"""Messages to systemd over a real socket, and the unit file."""

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgead.errors import SourceError
from edgead.runtime import FakeSession
from edgead.streaming import stream
from edgead.streaming.arrivals import Arrivals
from edgead.streaming.camera import Camera
from edgead.streaming.loop import stream_cameras
from edgead.streaming.state import StateChange
from edgead.streaming.systemd import Service
from edgead.types import UInt8Array
from tests.helpers.soak import ALLOCATOR
from tests.helpers.stream_parts import SIZE, ScriptedSource, textured
from tests.helpers.trigger_parts import wait_until

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
LIMIT_S = 20


class Systemd:
    """The socket at which systemd waits for the messages of a service."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def messages(self) -> list[str]:
        """The lines of all messages since the last call."""
        lines = []
        while select.select([self._socket], [], [], 0.0)[0]:
            lines += self._socket.recv(65536).decode().split("\n")
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    manager = Systemd(str(tmp_path / "notify"))
    yield manager
    manager.close()


def run(session: FakeSession, source: ScriptedSource) -> None:
    stream(session, source, [], size=SIZE, threshold=0.5)


def test_a_stream_reports_that_it_is_ready_its_states_and_its_end(systemd: Systemd) -> None:
    source = ScriptedSource(lambda: (textured(number) for number in range(3)), live=False)
    with FakeSession(SIZE) as session:
        run(session, source)
    messages = systemd.messages()
    assert messages[0] == "STATUS=starting"
    assert messages[1:3] == ["READY=1", "WATCHDOG=1"]
    assert messages[3] == "STATUS=running"
    assert messages[-2].startswith("STATUS=stopped: ")
    assert messages[-1] == "STOPPING=1"


def test_the_end_of_a_camera_is_not_the_end_of_a_stream_that_waits_for_another(systemd: Systemd) -> None:
    def open_late() -> Camera:
        wait_until(lambda: "STATUS=left: stopped: the source has ended" in seen())
        return Camera(source(), [], 0.5, name="right")

    def source() -> ScriptedSource:
        return ScriptedSource(lambda: iter([textured(1)]), live=False)

    def seen() -> list[str]:
        messages.extend(systemd.messages())
        return messages

    messages: list[str] = []
    with FakeSession(SIZE) as session, Arrivals() as arrivals:
        arrivals.expect("right", [], open_late)
        stream_cameras(session, [Camera(source(), [], 0.5, name="left")], size=SIZE, arrivals=arrivals)
    assert seen().count("STOPPING=1") == 1
    assert messages[-1] == "STOPPING=1"


def test_an_error_is_the_last_status(systemd: Systemd) -> None:
    def script() -> Iterator[UInt8Array]:
        yield textured(1)
        raise SourceError("the camera\nREADY=1 burnt down")

    with FakeSession(SIZE) as session, pytest.raises(SourceError):
        run(session, ScriptedSource(script, live=False))
    # A line break in a text is no new message.
    status, stopping = systemd.messages()[-2:]
    assert status.startswith("STATUS=stopped: ")
    assert status.endswith("burnt down")
    assert stopping == "STOPPING=1"


def test_a_model_that_hangs_reports_no_life(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    hangs, goes_on = threading.Event(), threading.Event()

    def score(image: UInt8Array) -> float:
        if image.min() > 150:
            hangs.set()
            assert goes_on.wait(LIMIT_S)
        return 0.0

    def script() -> Iterator[UInt8Array]:
        for number in range(60):
            yield textured(200 if number == 40 else number)
            time.sleep(0.001)

    thread = threading.Thread(
        target=run, args=(FakeSession(SIZE, score=score), ScriptedSource(script, False))
    )
    thread.start()
    assert hangs.wait(LIMIT_S)
    assert systemd.messages().count("WATCHDOG=1") > 2
    time.sleep(0.05)
    assert systemd.messages() == []
    goes_on.set()
    thread.join(LIMIT_S)
    assert systemd.messages().count("WATCHDOG=1") > 2


def test_life_is_reported_twice_in_the_time_of_the_watchdog(systemd: Systemd) -> None:
    environment = dict(os.environ) | {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    service = Service(environment)
    reported_s = []
    for tenth in range(1000):
        service.beat(tenth / 10)
        if "WATCHDOG=1" in systemd.messages():
            reported_s.append(tenth / 10)
    assert reported_s == pytest.approx([0, 15, 30, 45, 60, 75, 90])
    # The watchdog of another process, or none.
    for other in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}):
        service = Service(environment | other)
        for second in range(100):
            service.beat(float(second))
        assert systemd.messages().count("WATCHDOG=1") == 1


def test_an_abstract_address_and_no_address() -> None:
    name = f"edgead-test-{os.getpid()}"
    manager = Systemd(f"\0{name}")
    Service({"NOTIFY_SOCKET": f"@{name}"}).state(StateChange("running", "starting"))
    assert manager.messages() == ["STATUS=running"]
    service = Service({})
    service.beat()
    service.state(StateChange("running", "starting"))
    assert manager.messages() == []
    manager.close()


def test_a_systemd_that_does_not_listen_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000"})
    for second in range(5):
        service.beat(float(second))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    # A full socket loses messages and does not hold up the stream.
    manager = Systemd(str(tmp_path / "full"))
    service = Service({"NOTIFY_SOCKET": str(tmp_path / "full"), "WATCHDOG_USEC": "1000"})
    for second in range(2000):
        service.beat(float(second))
    assert 0 < len(manager.messages()) < 2000
    manager.close()


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd"
)
def test_the_unit_file_is_valid_and_closed(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("edgead")
    unit = (DEPLOY / "edgead-stream@.service").read_text().replace("/opt/edgead/bin/edgead", str(command))
    path = tmp_path / "edgead-stream@line7.service"
    path.write_text(unit)
    verify = ["systemd-analyze", "verify", str(path)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    # It may find faults in units of the system, too.
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr
    # The exposure of a service without any of the options is 9.6 of 10.
    security = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", str(path)]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["edgead-stream@.service", "Dockerfile", "Dockerfile.jetson"])
def test_a_deployed_stream_has_the_memory_settings_of_the_soak(name: str) -> None:
    lines = [
        line.removeprefix("ENV ").removeprefix("Environment=")
        for line in (DEPLOY / name).read_text().splitlines()
    ]
    assert " ".join(f"{key}={value}" for key, value in ALLOCATOR.items()) in lines
