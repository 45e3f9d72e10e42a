"""Fixtures for sources of the network."""

import threading
from collections.abc import Iterator

import pytest

from edgead.streaming.sources import LiveSource


@pytest.fixture
def ending() -> Iterator[threading.Event]:
    """Set at the end of a test, so that no answer waits for longer."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = LiveSource.__init__.__kwdefaults__ | {"first_wait_s": 0.01, "longest_wait_s": 0.02}
    monkeypatch.setattr(LiveSource.__init__, "__kwdefaults__", defaults)
