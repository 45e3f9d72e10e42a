"""Sinks of the latest state, while they are slow."""

import threading

import pytest

from edgead.streaming.deliveries import Deliveries
from edgead.streaming.sinks.latest import LatestSink
from tests.helpers.mqtt_broker import LIMIT_S
from tests.helpers.stream_parts import frame, textured
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict


class Held(LatestSink):
    """A sink that holds its first state until it may go on, and keeps what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.may_go_on = threading.Event(), threading.Event()
        self.shown: list[tuple[str, int | None, int]] = []

    def _show(self) -> None:
        self.holds.set()
        assert self.may_go_on.wait(LIMIT_S)
        number = None if self.latest.verdict is None else self.latest.verdict["frame_index"]
        self.shown.append((self.latest.state, number, self.latest.good))

    def _end(self) -> None:
        pass


@pytest.mark.parametrize("waits", [True, False])
def test_only_verdicts_are_lost_and_none_if_the_source_waits(waits: bool) -> None:
    sink = Held()
    with Deliveries([sink], waits=waits, survives=True) as outputs:
        outputs.state(LOST)
        assert sink.holds.wait(LIMIT_S)
        outputs.state(BACK)
        for index in range(3):
            outputs.verdict(frame(textured(1), index), verdict(index), MAP)
        sink.may_go_on.set()
    end = [("running", 2, 3), ("stopped", None, 3)]
    if waits:
        middle = [("running", None, 0), ("running", 0, 1), ("running", 1, 2)]
        assert sink.shown == [("no_signal", None, 0), *middle, *end]
        assert (outputs.counts()[0].written, outputs.counts()[0].lost) == (5, 0)
    else:
        assert sink.shown == [("no_signal", None, 0), *end]
        # A change of the state that the next record shows is neither.
        assert (outputs.counts()[0].written, outputs.counts()[0].lost) == (2, 2)


def test_a_verdict_that_comes_without_a_signal_is_counted_and_not_shown() -> None:
    sink = Held()
    sink.may_go_on.set()
    with Deliveries([sink], waits=True, survives=True) as outputs:
        for change in (BACK, LOST):
            outputs.state(change)
            outputs.verdict(frame(textured(1), 7), verdict(7), MAP)
    shown = [("running", None, 0), ("running", 7, 1), ("no_signal", None, 1), ("no_signal", None, 2)]
    assert sink.shown == [*shown, ("stopped", None, 2)]
