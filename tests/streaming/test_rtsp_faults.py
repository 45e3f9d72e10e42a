"""No verdict on a damaged image: a real RTSP camera behind a relay that loses or damages packets, or sends garbage."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import pytest

from edgead.streaming.sources import network
from tests.helpers.rtsp_camera import needs_rtsp
from tests.helpers.rtsp_relay import rtsp_relay
from tests.helpers.rtsp_stream import MAX_AGE_S, Running, clock_camera

pytestmark = needs_rtsp

FPS = 30
# Of the levels of the squares in an image. x264 alone stays below 25.
LEAST_DAMAGE = 40
ERROR_MS = 300.0


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "NETWORK_TIMEOUT_MS", 1500)


Fault: TypeAlias = Callable[[random.Random, bytes], "bytes | None"]


def lose(rng: random.Random, packet: bytes) -> bytes | None:
    return None if rng.random() < 0.05 else packet


def damage(rng: random.Random, packet: bytes) -> bytes:
    # Parameter sets are short. Damage there is found as easily, but ends the session.
    if rng.random() > 0.05 or len(packet) < 300:
        return packet
    start = rng.randrange(60, len(packet) - 60)
    return packet[:start] + rng.randbytes(40) + packet[start + 40 :]


@pytest.mark.parametrize(("fault", "transport"), [(lose, "udp"), (damage, "tcp")], ids=["lost", "damaged"])
def test_images_with_a_bad_packet_are_broken_up_to_the_next_key_image(fault: Fault, transport: str) -> None:
    rng, faults = random.Random(5), []

    def mangle(packet: bytes) -> bytes | None:
        changed = fault(rng, packet)
        if changed != packet:
            faults.append(packet)
        return changed

    with (
        clock_camera("h264", FPS) as (camera_port, _),
        rtsp_relay(camera_port) as relay,
        Running(relay.port, f"#transport={transport}") as running,
    ):
        running.more(3)
        relay.mangle = mangle
        running.wait_for(lambda: len(faults) >= 4 and running.source.broken >= 8)
        relay.mangle = lambda packet: packet
        if transport == "tcp":
            relay.garbage = rng.randbytes(100_000)
            running.wait_for(lambda: not relay.garbage)
        running.more(12)
    assert max(running.record.damages) < LEAST_DAMAGE
    assert max(running.record.true_ms) <= MAX_AGE_S * 1e3 + ERROR_MS
    counts = running.summaries[0]
    assert counts.frames_broken >= 8
    assert counts.frames_seen == (
        counts.frames_scored + counts.frames_dropped + counts.frames_withheld + counts.frames_broken
    )


def test_a_camera_whose_images_stay_damaged_is_reported_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.5)
    rng = random.Random(6)
    with (
        clock_camera("jpeg", FPS) as (camera_port, _),
        rtsp_relay(camera_port) as relay,
        Running(relay.port) as running,
    ):
        running.more(3)
        relay.mangle = lambda packet: packet[:200] + rng.randbytes(len(packet[200:]))
        running.wait_for(lambda: bool(running.record.losses))
        relay.mangle = lambda packet: packet
        running.more(3)
    assert [each.causes for each in running.record.losses] == [("no_image",)]
    assert "damaged" in running.record.losses[0].reason
    assert max(running.record.damages) < LEAST_DAMAGE
