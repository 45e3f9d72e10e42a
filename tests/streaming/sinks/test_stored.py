"""Sinks that store records on the disk and send them from there."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgead.streaming import deliveries
from edgead.streaming.sinks import stored
from tests.streaming.test_delivery import images, run

BUG = RuntimeError("a bug")


class Broken(stored.StoredSink):
    """A sink whose thread that sends has a bug."""

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        self.start()

    def _send(self, messages: Sequence[str]) -> int:
        raise BUG


@pytest.mark.parametrize("live", [True, False])
def test_a_bug_of_the_thread_that_sends_ends_the_stream(tmp_path: Path, live: bool) -> None:
    with pytest.raises(RuntimeError) as caught:
        run([Broken(tmp_path / "spool")], images(lambda: False, 1000), live)
    assert caught.value is BUG


def test_a_stop_leaves_a_stored_sink_the_time_to_close() -> None:
    assert stored.CLOSE_S + stored.JOIN_S < deliveries.END_S
