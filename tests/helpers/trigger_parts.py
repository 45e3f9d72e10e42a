"""The control of a stream without the stream, to test triggers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgead.streaming import LineControl, PartRule, Trigger, open_trigger
from edgead.streaming.parts import Part

LIMIT_S = 30


def wait_until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "the condition does not become true"
        time.sleep(0.002)


class Announced(LineControl):
    """A control that keeps the parts that were announced."""

    def __init__(self) -> None:
        super().__init__(PartRule())
        self.got: list[Part] = []

    def take(self, count: int) -> list[Part]:
        """Wait until so many parts were announced in all, and return them."""
        wait_until(lambda: len(self.poll()) >= count)
        assert len(self.got) == count
        return self.got

    def poll(self) -> list[Part]:
        assert self.parts is not None
        self.got += self.parts.take_all()
        return self.got

    @property
    def ids(self) -> list[str | None]:
        return [part.part_id for part in self.got]


@contextmanager
def started(uri: str) -> Iterator[tuple[Trigger, Announced]]:
    """A trigger that runs, and what it announces."""
    line = Announced()
    with open_trigger(uri) as trigger:
        trigger.start(line)
        yield trigger, line
