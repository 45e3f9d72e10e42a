"""A short soak: faults in source, sinks and disk at once. `benchmarks/soak.py` runs a long one."""

from pathlib import Path

import numpy as np
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
    # Both connections, to the broker and to the web server, may be missing in the second tenth, where servers fail. A
    # leak of a fault is larger.
    assert outcome.faults["lost"] > 4
    for counts in (files, threads):
        assert np.median(counts[90:]) <= np.median(counts[10:20]) + 2
