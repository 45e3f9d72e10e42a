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
    _, _, files, threads = zip(*outcome.samples, strict=True)
    # One more for a connection that is being made.
    assert max(files[50:]) <= max(files[10:50]) + 1
    assert max(threads[50:]) <= max(threads[10:50]) + 1
