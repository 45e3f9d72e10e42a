"""No verdict on an old image: a real RTSP camera that draws the time into its images, stopped and held back."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import pytest

from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, Summary, open_source, stream
from edgead.streaming.sources import network
from edgead.types import Float32Array, Frame, Verdict
from tests.helpers.rtsp_camera import free_port, needs_rtsp, rtsp_camera, stamp_of_image_ms
from tests.helpers.stream_parts import SIZE, StateRecord
from tests.helpers.tcp_gate import tcp_gate

pytestmark = needs_rtsp

FPS = 15
PERIOD_MS = 1000 / FPS
MAX_AGE_S = 0.5
# Error of the computed age: a machine that is busy sees no image as early as it could come.
ERROR_MS = 300.0


class Ages(StateRecord):
    """True ages of the images at their verdicts, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.true_ms: list[float] = []
        self.shapes: set[tuple[int, ...]] = set()

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        assert verdict.age_ms is not None
        decided_ms = frame.captured_at_ns / 1e6 + verdict.age_ms
        self.true_ms.append(decided_ms - stamp_of_image_ms(frame.image))
        self.shapes.add(frame.image.shape)
        super().write(frame, verdict, anomaly_map)


class Running:
    """A stream in a thread."""

    def __init__(self, port: int) -> None:
        self.record, self.summaries, self._stop = Ages(), list[Summary](), threading.Event()
        self._source = open_source(f"rtsp://127.0.0.1:{port}/line")
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        policy = StreamPolicy(max_age_s=MAX_AGE_S)
        with self._source:
            self.summaries.append(
                stream(
                    FakeSession(SIZE),
                    self._source,
                    [self.record],
                    size=SIZE,
                    threshold=2.0,
                    policy=policy,
                    stop=self._stop,
                )
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            assert self._thread.is_alive()
            time.sleep(0.01)

    def more(self, count: int) -> None:
        """Wait for more verdicts."""
        target = len(self.record.verdicts) + count
        self.wait_for(lambda: len(self.record.verdicts) >= target)

    def __enter__(self) -> "Running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.6)
    monkeypatch.setattr(network, "NETWORK_TIMEOUT_MS", 1500)
    times = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1500)
    monkeypatch.setattr(network, "_TIMEOUTS", times)


@contextmanager
def camera(codec: str) -> Iterator[tuple[int, int]]:
    port = free_port()
    with rtsp_camera(port, "--fps", str(FPS), "--codec", codec) as server:
        yield port, server.pid


def test_no_verdict_on_an_image_from_before_the_camera_was_stopped() -> None:
    with camera("h264") as (port, pid), Running(port) as running:
        running.more(20)
        steady_ms = statistics.median(running.record.true_ms)
        os.kill(pid, signal.SIGSTOP)
        # Longer than a read may take, so that FFmpeg gives what its decoder held back.
        running.wait_for(lambda: bool(running.record.losses))
        time.sleep(1.5)
        os.kill(pid, signal.SIGCONT)
        running.more(10)
    assert max(running.record.true_ms) <= MAX_AGE_S * 1e3 + ERROR_MS
    assert running.record.losses[0].causes == ("no_image",)
    assert running.record.states[-2:] == ["running", "stopped"]
    # Every image in steady state is younger than two images.
    assert steady_ms < 2 * PERIOD_MS
    summary = running.summaries[0]
    assert summary.age_p50_ms is not None
    assert summary.age_p50_ms == pytest.approx(statistics.median(running.record.true_ms), abs=ERROR_MS)


def test_images_that_the_network_held_back_are_late_or_dropped() -> None:
    with (
        camera("h264") as (camera_port, _),
        tcp_gate(camera_port) as (port, is_open),
        Running(port) as running,
    ):
        running.more(10)
        is_open.clear()
        time.sleep(1.2)
        is_open.set()
        running.more(10)
    assert max(running.record.true_ms) <= MAX_AGE_S * 1e3 + ERROR_MS
    counts = running.summaries[0]
    late = counts.withheld.get("late", 0)
    assert late == len(running.record.missing)
    # Images that came in one moment replace one another, those that were taken are late.
    assert late + counts.frames_dropped >= 10
    assert counts.frames_seen == counts.frames_scored + counts.frames_dropped + counts.frames_withheld


def test_a_camera_that_freezes_in_front_of_its_encoder_is_reported_and_returns() -> None:
    with camera("h264") as (port, pid), Running(port) as running:
        running.more(10)
        os.kill(pid, signal.SIGUSR2)
        running.wait_for(lambda: ("frozen",) in [each.causes for each in running.record.losses])
        before = len(running.record.verdicts)
        # Longer than from one key image to the next.
        time.sleep(1.0)
        assert len(running.record.verdicts) == before
        os.kill(pid, signal.SIGUSR2)
        running.more(5)
    assert {each.causes for each in running.record.losses} <= {("unchanged",), ("frozen",)}
    assert running.record.states[-2:] == ["running", "stopped"]
    assert running.summaries[0].withheld["frozen"] > 0


def test_a_new_size_within_a_session_is_withheld_and_reported() -> None:
    with camera("jpeg") as (port, pid), Running(port) as running:
        running.more(5)
        os.kill(pid, signal.SIGUSR1)
        running.wait_for(lambda: bool(running.record.losses))
    assert [each.causes for each in running.record.losses] == [("size",)]
    assert running.summaries[0].withheld["size"] > 0
    assert running.record.shapes == {(128, 160, 3)}


def test_motion_jpeg_over_rtsp_is_read_with_options_that_are_set_for_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    monkeypatch.delenv(name, raising=False)
    with camera("jpeg") as (port, _):
        with open_source(f"rtsp://127.0.0.1:{port}/line") as source:
            assert name not in os.environ
            frame = next(iter(source))
        monkeypatch.setenv(name, "rtsp_transport;udp")
        with open_source(f"rtsp://127.0.0.1:{port}/line"):
            assert os.environ[name] == "rtsp_transport;udp"
    # The image is decoded as an image file is, and its time of capture is computed.
    assert frame.image.shape == (128, 160, 3)
    assert abs(frame.captured_at_ns / 1e6 - stamp_of_image_ms(frame.image)) < ERROR_MS
