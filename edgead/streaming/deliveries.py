"""Delivery of events to all sinks of a stream: records first, then images, and a bounded end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from math import inf
from types import TracebackType

from typing_extensions import Self

from edgead.streaming.delivery import Delivery, Item, Ticket
from edgead.streaming.freshness import Problem
from edgead.streaming.line import LineControl
from edgead.streaming.record import (
    Record,
    lost_record,
    missed_record,
    no_verdict_record,
    part_withheld_record,
    state_record,
    threshold_record,
    verdict_record,
    withheld_record,
)
from edgead.streaming.sinks.base import RecordSink, Sink, SinkCount, StopStream
from edgead.streaming.state import StateChange
from edgead.types import Float32Array, Frame, TriggeredPart, Verdict

# Time in which the sinks finish after the stream was stopped. Images get the first part of it, so that the log of the
# records can still have the images that were lost.
END_S = 1.0
_IMAGES_S = 0.6
_POLL_S = 0.05
# Largest number of events that follow from one frame of a file: a threshold, a state, a verdict, and the end.
FRAME_EVENTS = 4


class Deliveries:
    """All sinks of one camera, or those of several cameras; a context manager, which finishes and closes them.

    Args:
        sinks: Opened sinks. They are closed at the end, each in its own thread.
        waits: Whether events wait for a slow sink, because the source waits too.
        survives: Whether the stream goes on if a sink fails. Otherwise `check` raises the failure.
        stop: Event that ends the stream once it is set.
        camera: Name of the camera, for the records; None for the sinks of several cameras.
        shared: Sinks of records of several cameras, which get the records of this one, too.

    Attributes:
        valid_s: Time after the capture of an image, in seconds, after which its verdict is no longer current.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        waits: bool,
        survives: bool,
        stop: threading.Event | None = None,
        camera: str | None = None,
        shared: Deliveries | None = None,
    ) -> None:
        self._camera = camera
        self._stop = threading.Event() if stop is None else stop
        self.valid_s = inf
        # Time of capture of the image with the verdict that sinks of the newest state show; None if they show none.
        self._shown_ns: int | None = None
        self._finished = False
        self._shared = shared
        self._members: list[Deliveries] = []
        self._own = [
            Delivery(sink, waits=waits, retries=survives, on_loss=self._record_loss) for sink in sinks
        ]
        self._records = [(one, one.sink) for one in self._own if isinstance(one.sink, RecordSink)]
        if shared is not None:
            self._records += shared._records
            shared._members.append(self)
        self._images = [one for one in self._own if not isinstance(one.sink, RecordSink)]
        for sink in sinks:
            sink.show_counts(self.all_counts)

    def follow(self, *, waits: bool, survives: bool) -> None:
        """Follow a source that was absent until now.

        Args:
            waits: See the class.
            survives: See the class.
        """
        for one in self._own:
            one.waits, one.retries = waits, survives

    def counts(self) -> tuple[SinkCount, ...]:
        """Return the counts of every sink of its own, in the order of the sinks."""
        return tuple(one.count() for one in self._own)

    def all_counts(self) -> tuple[SinkCount, ...]:
        """Return the counts of every sink of its own, and then of the shared ones, or of those that share them."""
        others = self._members if self._shared is None else [self._shared]
        return self.counts() + tuple(count for other in others for count in other.counts())

    @property
    def is_full(self) -> bool:
        """Whether the next frame, or the end, would wait for a slow sink."""
        return any(one.is_full(FRAME_EVENTS) for one in (*self._own, *(one for one, _ in self._records)))

    def check(self) -> None:
        """Raise the failure of a sink.

        Raises:
            EdgeadError: A sink failed, and the stream does not survive that.
            StopStream: A sink asked for the end.
        """
        failures = [one.failure for one in self._own if one.failure is not None]
        # An error is more important than the wish to end.
        for failure in sorted(failures, key=lambda failure: isinstance(failure, StopStream)):
            raise failure

    def verdict(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Give a verdict to all sinks. See `Sink.write`.

        The image of a verdict is written after its record, unless the sink of the record hangs or fails.
        """
        self._shown_ns = frame.captured_at_ns
        written = self._put_record(verdict_record(frame, verdict), frame.index)
        for one in self._images:
            if one.sink.wants(verdict):
                call = partial(one.sink.write, frame, verdict, anomaly_map)
                one.put(Item(call, frame.index, written), self._stop)

    def withheld(self, frame: Frame, reason: str) -> None:
        """Give a missing verdict to all sinks that show it. See `Sink.withheld`."""
        self._put_record(withheld_record(frame, reason), frame.index)
        self._show_withheld(frame, reason)

    def _show_withheld(self, frame: Frame, reason: str) -> None:
        for one in self._images:
            # A sink that ignores it would count it as written, or as a lost image.
            if type(one.sink).withheld is not Sink.withheld:
                one.put(Item(partial(one.sink.withheld, frame, reason), frame.index), self._stop)

    def part_withheld(self, frame: Frame | None, source: str, part: TriggeredPart, problem: Problem) -> None:
        """Give a part without a verdict to all sinks.

        Args:
            frame: Latest frame of the source, for sinks that show an image; None if none came yet.
            source: Address of the source, without secrets.
            part: Part of a trigger.
            problem: Reason for the missing verdict.
        """
        self._put_record(part_withheld_record(source, part, problem))
        if frame is not None:
            self._show_withheld(frame, problem.text)

    def missed(self, source: str, triggers: int, reason: str) -> None:
        """Give a number of missed triggers to the sinks of records."""
        self._put_record(missed_record(source, triggers, reason))

    def state(self, change: StateChange) -> None:
        """Give a change of the state to all sinks that show it. See `Sink.state`."""
        self._put_record(state_record(change))
        for one in self._images:
            if type(one.sink).state is not Sink.state:
                one.put(Item(partial(one.sink.state, change)), self._stop)

    def take_threshold(self, line: LineControl, part: str | None, threshold: float) -> float:
        """Take the thresholds that were set, and give each change to the sinks of records.

        Args:
            line: Control of the stream.
            part: Name of the part.
            threshold: Decision threshold of the last frame.

        Returns:
            Decision threshold of the next frame.
        """
        while (new := line.take_threshold()) is not None:
            self._put_record(threshold_record(part, new.value, threshold, new.by))
            threshold = new.value
        return threshold

    def no_verdict(self, reason: str) -> None:
        """End the verdict that sinks of the newest state and the page show, if they show one.

        Args:
            reason: Why it is no longer current, as text.
        """
        if self._shown_ns is not None:
            self._shown_ns = None
            self._put_record(no_verdict_record(reason), newest_only=True)

    def end_old_verdict(self, now_s: float) -> None:
        """End the verdict that sinks of the newest state show if its image is older than `valid_s`.

        Args:
            now_s: Current time in seconds, from `time.monotonic`.
        """
        if self._shown_ns is not None and now_s - self._shown_ns / 1e9 > self.valid_s:
            self.no_verdict(f"the latest image with a verdict is older than {self.valid_s:g} s")

    def _put_record(
        self, record: Record, frame_index: int | None = None, *, newest_only: bool = False
    ) -> tuple[Ticket, ...]:
        record = record.of_camera(self._camera)
        return tuple(
            one.put(
                Item(
                    partial(sink.record, record),
                    frame_index,
                    skip=partial(sink.skip, record) if sink.newest_only else None,
                ),
                self._stop,
            )
            for one, sink in self._records
            if sink.newest_only or sink.takes_no_verdict or not newest_only
        )

    def _record_loss(self, name: str, events: int, reason: str, frame_index: int | None) -> None:
        """Give the record of lost events to the sinks of records, without waiting; called from any thread."""
        record = lost_record(name, events, reason, frame_index).of_camera(self._camera)
        for one, sink in self._records:
            # A loss changes no state, and would replace a verdict there.
            if not sink.newest_only:
                one.put(Item(partial(sink.record, record)))

    def finish(self, *others: Deliveries) -> None:
        """Write what waits and close all sinks; may be called twice.

        After a stop this takes at most `END_S`. Otherwise it takes as long as any sink still answers.

        Args:
            *others: Sinks that are finished at the same time.
        """
        left = [one for one in (self, *others) if not one._finished]
        for one in left:
            one._finished = True
        start_s = time.monotonic()
        self._finish([image for one in left for image in one._images], start_s + _IMAGES_S)
        records = [own for one in left for own in one._own if isinstance(own.sink, RecordSink)]
        for record in records:
            if record.is_stuck:
                # Now, so that the other logs have its losses.
                record.give_up()
        self._finish(records, start_s + END_S)

    def _finish(self, deliveries: Sequence[Delivery], end_s: float) -> None:
        """Finish some sinks until a time of the monotonic clock, or, without a stop, while any of them answers."""
        for one in deliveries:
            one.begin_to_finish()
        while alive := [one for one in deliveries if one.is_alive]:
            stopped = self._stop.is_set()
            for one in alive:
                one.sink.hurry = stopped
            if (stopped and time.monotonic() > end_s) or (not stopped and all(one.is_stuck for one in alive)):
                break
            alive[0].join(_POLL_S)
        for one in deliveries:
            one.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
