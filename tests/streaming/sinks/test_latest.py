"""Sinks of the latest state, while they are slow."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgead.errors import SinkError
from edgead.runtime import FakeSession
from edgead.streaming import stream
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.sinks import SinkCount
from edgead.streaming.sinks.latest import LatestSink
from edgead.types import UInt8Array
from tests.helpers.mqtt_broker import LIMIT_S
from tests.helpers.stream_parts import SIZE, Records, ScriptedSource, frame, textured
from tests.streaming.sinks.test_mqtt import wait_until
from tests.streaming.test_sinks import BACK, LOST, MAP, verdict


class Held(LatestSink):
    """A sink that holds its first state until it may go on, and keeps what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.may_go_on = threading.Event(), threading.Event()
        self.failures = 0
        self.shown: list[tuple[str, int | None, int]] = []

    def _show(self) -> None:
        self.holds.set()
        assert self.may_go_on.wait(LIMIT_S)
        if self.failures:
            self.failures -= 1
            raise SinkError("not now")
        number = None if self.latest.verdict is None else self.latest.verdict["frame_index"]
        self.shown.append((self.latest.state, number, self.latest.good))

    def _end(self) -> None:
        pass


@pytest.mark.parametrize("waits", [True, False])
def test_only_verdicts_are_replaced_and_none_if_the_source_waits(waits: bool) -> None:
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
        written, replaced = 5, 0
    else:
        assert sink.shown == [("no_signal", None, 0), *end]
        # A change of the state that the next record shows is neither.
        written, replaced = 2, 2
    assert outputs.counts() == (SinkCount("Held", written, 0, None, replaced),)


def test_verdicts_that_are_replaced_while_the_sink_fails_are_lost() -> None:
    sink = Held()
    sink.failures = 1
    with Deliveries([sink], waits=False, survives=True) as outputs:
        outputs.state(BACK)
        assert sink.holds.wait(LIMIT_S)
        for index in range(3):
            outputs.verdict(frame(textured(1), index), verdict(index), MAP)
        sink.may_go_on.set()
    assert sink.shown[0] == ("running", 2, 3)
    (count,) = outputs.counts()
    # The state, which failed, and the verdicts before the newest one.
    assert (count.written, count.lost, count.replaced) == (1, 3, 0)


def test_a_verdict_that_comes_without_a_signal_is_counted_and_not_shown() -> None:
    sink = Held()
    sink.may_go_on.set()
    with Deliveries([sink], waits=True, survives=True) as outputs:
        for change in (BACK, LOST):
            outputs.state(change)
            outputs.verdict(frame(textured(1), 7), verdict(7), MAP)
    shown = [("running", None, 0), ("running", 7, 1), ("no_signal", None, 1), ("no_signal", None, 2)]
    assert sink.shown == [*shown, ("stopped", None, 2)]


def test_a_verdict_ends_with_the_first_image_that_shows_nothing_or_when_its_image_is_old() -> None:
    sink, log = Held(), Records()
    sink.may_go_on.set()
    with Deliveries([sink, log], waits=True, survives=True) as outputs:
        outputs.valid_s = 1.0
        outputs.state(BACK)
        for index in range(2):
            outputs.verdict(frame(textured(1), index), verdict(index), MAP)
            # Only the first of many.
            outputs.no_verdict("the image is dark")
            outputs.no_verdict("the image is dark")
        outputs.verdict(replace(frame(textured(1), 2), captured_at_ns=5_000_000_000), verdict(2), MAP)
        outputs.end_old_verdict(6.0)
        outputs.end_old_verdict(6.1)
    one, two = [("running", 0, 1), ("running", None, 1)], [("running", 1, 2), ("running", None, 2)]
    three = [("running", 2, 3), ("running", None, 3)]
    assert sink.shown == [("running", None, 0), *one, *two, *three, ("stopped", None, 3)]
    # Records of every event have the loss of the signal instead.
    assert [record["event"] for record in log.records] == ["state", "verdict", "verdict", "verdict"]


def test_a_black_image_ends_the_verdict_at_once_and_a_copy_does_not() -> None:
    sink = Held()
    sink.may_go_on.set()

    def script() -> Iterator[UInt8Array]:
        yield textured(100)
        wait_until(lambda: ("running", 0, 1) in sink.shown)
        yield textured(100)
        # The next frame must not replace it.
        time.sleep(0.05)
        yield np.zeros_like(textured(100))
        wait_until(lambda: sink.shown[-1] == ("running", None, 1))
        yield textured(120)
        wait_until(lambda: sink.shown[-1] == ("running", 3, 2))

    summary = stream(FakeSession(SIZE), ScriptedSource(script, True), [sink], size=SIZE, threshold=0.5)
    assert summary.withheld["one_colour"] == 1
    verdicts = [number for state, number, _ in sink.shown if state == "running"]
    assert verdicts[verdicts.index(0) :] == [0, None, 3]
