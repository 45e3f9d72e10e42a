"""No verdict on an old image: a real RTSP camera that draws the time into its images, stopped and held back."""

import os
import signal
import statistics
import time

import pytest

from edgead.streaming import open_source
from edgead.streaming.sources import network
from tests.helpers.rtsp_camera import needs_rtsp, stamp_of_image_ms
from tests.helpers.rtsp_stream import FPS, MAX_AGE_S, Running, clock_camera
from tests.helpers.tcp_gate import tcp_gate

pytestmark = needs_rtsp

PERIOD_MS = 1000 / FPS
# Error of the computed age: a machine that is busy sees no image as early as it could come.
ERROR_MS = 300.0


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.6)
    monkeypatch.setattr(network, "NETWORK_TIMEOUT_MS", 1500)


def test_no_verdict_on_an_image_from_before_the_camera_was_stopped() -> None:
    with clock_camera("h264") as (port, pid), Running(port) as running:
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
        clock_camera("h264") as (camera_port, _),
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
    with clock_camera("h264") as (port, pid), Running(port) as running:
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


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_a_new_size_within_a_session_is_withheld_and_reported(codec: str) -> None:
    with clock_camera(codec) as (port, pid), Running(port) as running:
        running.more(5)
        os.kill(pid, signal.SIGUSR1)
        running.wait_for(lambda: bool(running.record.losses))
    assert [each.causes for each in running.record.losses] == [("size",)]
    assert running.summaries[0].withheld["size"] > 0
    assert running.record.shapes == {(128, 160, 3)}


def test_motion_jpeg_over_rtsp() -> None:
    with clock_camera("jpeg") as (port, _), open_source(f"rtsp://127.0.0.1:{port}/line") as source:
        frame = next(iter(source))
    assert frame.image.shape == (128, 160, 3)
    assert abs(frame.captured_at_ns / 1e6 - stamp_of_image_ms(frame.image)) < ERROR_MS
