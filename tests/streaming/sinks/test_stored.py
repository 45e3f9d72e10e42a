"""Sinks that store records on the disk and send them from there."""

from pathlib import Path

import pytest

from edgead.errors import EdgeadError
from edgead.streaming import deliveries
from edgead.streaming.record import Record
from edgead.streaming.sinks import stored
from tests.streaming.sinks.test_mqtt import wait_until
from tests.streaming.test_delivery import images, run

BUG = RuntimeError("a bug")


class Broken(stored.SentSink):
    """A sink whose thread that sends has a bug."""

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        self.start()

    def _send(self, message: str) -> bool:
        raise BUG


@pytest.mark.parametrize("live", [True, False])
def test_a_bug_of_the_thread_that_sends_ends_the_stream(tmp_path: Path, live: bool) -> None:
    with pytest.raises(RuntimeError) as caught:
        run([Broken(tmp_path / "spool")], images(lambda: False, 1000), live)
    assert caught.value is BUG


class OnceFull(stored.SentSink):
    """A sink whose disk is full at the first record."""

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        self.sent = 0
        self.start()

    def _send(self, message: str) -> bool:
        self.sent += 1
        if self.sent == 1:
            raise EdgeadError("the disk is full")
        return True


def test_the_problem_of_a_full_disk_is_over_when_records_go_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "RETRY_S", 0.05)
    with OnceFull(tmp_path / "spool") as sink:
        sink.record(Record(event="verdict"))
        wait_until(lambda: sink.problem() is not None)
        wait_until(lambda: sink.sent == 2)
        wait_until(lambda: sink.problem() is None)


def test_a_stop_leaves_a_stored_sink_the_time_to_close() -> None:
    assert stored.CLOSE_S + stored.JOIN_S < deliveries.END_S
