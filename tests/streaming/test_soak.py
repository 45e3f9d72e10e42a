"""A short soak: faults in source, sinks and disk at once. `benchmarks/soak.py` runs a long one."""

from pathlib import Path

import pytest

from tests.helpers.mqtt_broker import needs_broker
from tests.helpers.soak import soak
from tests.helpers.soak_rules import violations


@needs_broker
def test_every_frame_and_every_event_is_counted_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgead.streaming.delivery.RETRY_S", 0.05)
    monkeypatch.setattr("edgead.streaming.sinks.webhook.RETRY_MIN_S", 0.05)
    monkeypatch.setattr("edgead.streaming.sinks.webhook.TIMEOUT_S", 0.3)
    outcome = soak(tmp_path, 3000, seed=3)
    assert violations(outcome) == []
    # Every fault has happened.
    assert set(outcome.faults) >= {"lost", "frozen", "truncated", "black", "late", "size", "log taken away"}
    assert {"broker stopped", "webhook hangs", "pipe is not read", "disk full"} <= set(outcome.faults)
    _, _, files, threads = outcome.samples.T
    # The least of the second and of the last tenth: threads and connections of a moment do not count.
    assert min(files[90:]) <= min(files[10:20]) + 1
    assert min(threads[90:]) <= min(threads[10:20]) + 1
