"""Delivery of events to one sink: a bounded queue, and a thread that gives the events to the sink.

A sink that is slow, fails or does not answer (a pipe that nobody reads, a network disk that hangs) holds up its own
thread only. An event that does not fit into its queue is counted as lost. The thread closes the sink too, because
another thread must not use a sink that has not returned from a call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgead.errors import EdgeadError
from edgead.streaming.sinks.base import RecordSink, Sink, SinkCount, StopStream

# Longest wait for an event before the thread calls `tick` of the sink.
TICK_S = 0.1
# A call of a sink that takes longer counts as hung.
STUCK_S = 5.0
# Shortest time between two reports of lost events.
REPORT_S = 60.0
# Pause before a record is given again to a sink that failed.
RETRY_S = 1.0

_SLOW, _STUCK = "it takes events too slowly", "it does not answer"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Place of an event in the order of a delivery."""

    delivery: Delivery
    number: int

    def wait(self) -> None:
        """Wait until the event is written or lost; return early if the sink hangs or fails."""
        self.delivery.wait_until_settled(self.number)


@dataclass(frozen=True, slots=True)
class Item:
    """One event for one sink.

    Attributes:
        call: Function that gives the event to the sink.
        frame_index: Index of the frame, for the record of a loss; None if the event belongs to no frame.
        after: Events of other sinks that are written first.
        skip: Function that is called instead if a newer event of a source that does not wait has come, and returns
            whether a verdict is replaced by it; None if every event is written.
    """

    call: Callable[[], None]
    frame_index: int | None = None
    after: tuple[Ticket, ...] = ()
    skip: Callable[[], bool] | None = None


class Delivery:
    """Queue and thread of one sink.

    Args:
        sink: Opened sink. The thread closes it.
        waits: Whether `put` waits for room in the queue, for a source that waits too. A sink that
            hangs or fails is not waited for.
        retries: Whether a failure of the sink is survived. Otherwise it becomes `failure` and ends the thread.
        on_loss: Function that receives the number of lost events, the reason, and the index of the frame if the sink
            logs each loss. It is called from several threads.
    """

    def __init__(
        self, sink: Sink, *, waits: bool, retries: bool, on_loss: Callable[[str, int, str, int | None], None]
    ) -> None:
        self.sink = sink
        self.name = sink.name or type(sink).__name__
        self.failure: BaseException | None = None
        # Another source may follow.
        self.waits, self.retries, self._on_loss = waits, retries, on_loss
        self._queue: deque[Item] = deque()
        self._current: Item | None = None
        self._changed = threading.Condition()
        self._taken = self._settled = self._written = self._lost = self._replaced = self._unreported = 0
        self._reported_at_s = -REPORT_S
        self._problem: str | None = None
        self._busy_since_s: float | None = None
        self._finishing = self._is_over = False
        self._thread = threading.Thread(target=self._run, name=f"edgead-{self.name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs: the sink is not closed yet."""
        return self._thread.is_alive()

    @property
    def is_stuck(self) -> bool:
        """Whether a call of the sink has neither returned nor got anything done for `STUCK_S`."""
        since_s = self._busy_since_s
        return since_s is not None and time.monotonic() - max(since_s, self.sink.answered_at_s) > STUCK_S

    def is_full(self, events: int = 1) -> bool:
        """Return whether one of so many events would wait for room. A smaller queue has room once it is empty."""
        works = self._problem is None and self.failure is None and not self.is_stuck
        return self.waits and works and len(self._queue) > max(0, self.sink.capacity - events)

    def count(self) -> SinkCount:
        """Return the counts so far; events that wait are neither written nor lost."""
        problem = _STUCK if self.is_stuck else self._problem or self.sink.problem()
        return SinkCount(self.name, self._written, self._lost, problem, self._replaced)

    def put(self, item: Item, stop: threading.Event | None = None) -> Ticket:
        """Queue an event, or count it as lost.

        Args:
            item: Event.
            stop: Event that ends a wait for room in the queue; None not to wait.

        Returns:
            Place of the event.
        """
        with self._changed:
            while stop is not None and self.is_full() and not stop.is_set():
                self._changed.wait(TICK_S)
            if self._is_over or isinstance(self.failure, StopStream):
                return Ticket(self, self._taken)
            if not (full := len(self._queue) >= self.sink.capacity or self.failure is not None):
                self._queue.append(item)
                self._taken += 1
                self._changed.notify_all()
            ticket = Ticket(self, self._taken)
        if full:
            self._lose(item, _STUCK if self.is_stuck else self._problem or _SLOW)
        return ticket

    def wait_until_settled(self, number: int) -> None:
        """Wait for an event. See `Ticket.wait`."""
        with self._changed:
            while self._settled < number and self._problem is None and not self.is_stuck and self.is_alive:
                self._changed.wait(TICK_S)
                if self._finishing and self._busy_since_s is not None:
                    return

    def begin_to_finish(self) -> None:
        """Make the thread write the events that wait, without another try, and close the sink."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, at most for a time in seconds."""
        self._thread.join(timeout_s)

    def give_up(self) -> None:
        """Take no more events, and count the events that wait as lost; a thread that hangs ends with the process."""
        with self._changed:
            alive, self._is_over = self.is_alive, True
            rest = [*([self._current] if self._current is not None else []), *self._queue]
            self._queue.clear()
            self._current = None
        if alive:
            self._note(_STUCK)
        for item in rest:
            self._lose(item, self._problem or _STUCK)
        self._report(self._problem or _SLOW, now=True)

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._deliver(item)
        except StopStream as error:
            with self._changed:
                # A sink may also end the stream without an event.
                self._written += self._current is not None
                self.failure, self._current = error, None
                self._queue.clear()
        except BaseException as error:
            self.failure = error
        try:
            self._attempt(self.sink.close)
        except BaseException as error:
            self.failure = self.failure or error
        with self._changed:
            self._changed.notify_all()

    def _next(self) -> Item | None:
        """Wait for the next event; return None at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._finishing, TICK_S)
                if self._queue:
                    self._current = self._queue.popleft()
                    self._changed.notify_all()
                    return self._current
                if self._finishing:
                    self._is_over = True
                    return None
            works = self._attempt(self.sink.tick) is None
            if works and isinstance(self.sink, RecordSink) and self.sink.newest_only:
                # It has shown the newest state.
                self._recover()

    def _deliver(self, item: Item) -> None:
        """Give one event to the sink; a record is given again until it is written or the stream ends.

        A sink of the latest state does not get an event that a newer one has replaced, unless the source waits, and
        gets none again.
        """
        for ticket in item.after:
            ticket.wait()
        skip = item.skip if self._queue and not self.waits else None
        if skip is not None:
            self._skip(item, skip)
            return
        reason = self._attempt(item.call)
        again = isinstance(self.sink, RecordSink) and item.skip is None
        while reason is not None and again and not self._finishing:
            with self._changed:
                self._changed.wait_for(lambda: self._finishing, RETRY_S)
            reason = self._attempt(item.call)
        if not self._settle(item, written=reason is None):
            return
        if reason is not None:
            self._lose(item, reason)
        else:
            self._recover()

    def _skip(self, item: Item, skip: Callable[[], bool]) -> None:
        """End with an event that a newer one has replaced: it is lost if the sink fails, because it showed neither."""
        is_verdict = skip()
        if not self._settle(item) or not is_verdict:
            return
        if self._problem is not None:
            self._lose(item, self._problem)
        else:
            self._replaced += 1

    def _settle(self, item: Item, *, written: bool = False) -> bool:
        """End with an event; return False if it was given up meanwhile, and so is lost already."""
        with self._changed:
            given_up = self._current is not item
            self._current = None
            self._settled += 1
            self._written += written and not given_up
            self._changed.notify_all()
        return not given_up

    def _recover(self) -> None:
        """Forget a problem that has ended."""
        if self._problem is not None:
            self._report(self._problem, now=True)
            self._problem = None

    def _attempt(self, call: Callable[[], None]) -> str | None:
        """Call the sink; return the reason of a failure that is survived."""
        self._busy_since_s = time.monotonic()
        try:
            call()
        except EdgeadError as error:
            if not self.retries:
                self._problem = str(error)
                raise
            self._note(str(error))
            return str(error)
        finally:
            self._busy_since_s = None
        return None

    def _note(self, reason: str) -> None:
        """Remember a problem, and log the first of several."""
        if self._problem is None:
            _log.warning("%s: %s", self.name, reason)
        self._problem = reason

    def _lose(self, item: Item, reason: str) -> None:
        """Count an event as lost."""
        with self._changed:
            self._lost += 1
            self._unreported += 1
        self._report(reason, now=False)
        if self.sink.logs_each_loss:
            self._on_loss(self.name, 1, reason, item.frame_index)

    def _report(self, reason: str, *, now: bool) -> None:
        """Report the events that were lost since the last report, unless that was a moment ago."""
        with self._changed:
            time_s = time.monotonic()
            if not self._unreported or not (now or time_s - self._reported_at_s >= REPORT_S):
                return
            events, self._unreported, self._reported_at_s = self._unreported, 0, time_s
        # A failure that ends the stream is reported as its error.
        if self.failure is None:
            _log.warning("%s: %d events are lost: %s", self.name, events, reason)
        if not self.sink.logs_each_loss:
            self._on_loss(self.name, events, reason, None)
