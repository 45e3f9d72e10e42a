"""Interface of sinks, which receive verdicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead.streaming.record import Record, state_record, verdict_record, withheld_record
from edgead.streaming.state import StateChange
from edgead.types import Closing, Float32Array, Frame, Verdict


class StopStream(Exception):  # noqa: N818 (not an error)
    """Raised by a sink to end the stream without an error: somebody closed the window."""


@dataclass(frozen=True, slots=True)
class SinkCount:
    """Counts of the events of one sink.

    Attributes:
        sink: Address of the sink, without secrets.
        written: Number of events that the sink has taken.
        lost: Number of events that were dropped: the sink was too slow, did not answer, or failed.
        replaced: Number of verdicts that a newer record has replaced before a sink of the newest state could show
            them. They are not lost.
        problem: Reason why the sink takes no events now, or took none at the end; None if it works.
    """

    sink: str
    written: int
    lost: int
    problem: str | None = None
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A sink that can be opened: its address has no error.

    Attributes:
        place: Path of the output, or its name if it is no file. Two sinks on one place are refused.
        open: Function that opens the sink. It raises an EdgeadError if that fails.
        keep: Number of renamed files ``PLACE.1``, ``PLACE.2``, ... that the sink keeps.
    """

    place: Path | str
    open: Callable[[], Sink]
    keep: int = 0


class Sink(Closing):
    """An opened sink: a context manager that one thread uses. An EdgeadError is a failure of the sink.

    `edgead.streaming.stream` runs every sink in a thread of its own and closes it there.

    Attributes:
        name: Address of the sink, without secrets, for messages.
        capacity: Largest number of events that wait for the sink. An event may hold an image.
        logs_each_loss: Whether every lost image of this sink gets a record of its own.
        hurry: Whether the stream was stopped, so that `close` must return within a second.
        answered_at_s: Time of the monotonic clock at which `close` last got something done, for a sink that has much
            to do there.
    """

    name = ""
    capacity = 8
    logs_each_loss = False
    hurry = False
    answered_at_s = 0.0

    @abstractmethod
    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Receive a verdict.

        Args:
            frame: Frame that was scored; not to be changed.
            verdict: Decision on the frame.
            anomaly_map: Anomaly map, (h, w) float32, at the model's image size; not to be changed.

        Raises:
            EdgeadError: The sink cannot be written.
            StopStream: The stream is to end.
        """

    def wants(self, verdict: Verdict) -> bool:
        """Return False for a verdict that `write` would ignore, so that its image does not wait."""
        return True

    def withheld(self, frame: Frame, reason: str) -> None:
        """Receive a frame that gets no verdict: it is late, or its score or map is not finite.

        Args:
            frame: Frame; not to be changed.
            reason: Reason for the missing verdict, as text.

        Raises:
            EdgeadError: The sink cannot be written.
            StopStream: The stream is to end.
        """

    def state(self, change: StateChange) -> None:
        """Receive a change of the state of the stream, its start and its end included."""

    def tick(self) -> None:
        """Do periodic work; called several times a second while no event comes."""

    def problem(self) -> str | None:
        """Return why events do not get further although the sink takes them, such as a receiver that is away."""
        return None

    def show_counts(self, counts: Callable[[], Sequence[SinkCount]]) -> None:
        """Receive, once before the first event, a function that returns the counts of all sinks of the stream."""

    def close(self) -> None:
        """Finish the output; may be called twice."""


class RecordSink(Sink):
    """A sink that needs the records of events and no image, so that many events can wait for it.

    If it fails on a camera's record, the record is given to it again until it succeeds. A record that does not fit
    into the queue meanwhile is lost.

    Attributes:
        newest_only: Whether the sink shows the newest state and has no use for older records: of those that wait it
            gets the newest, by `record`, and the others by `skip`, and no record is given again.
        takes_no_verdict: Whether the sink gets every record, but also `no_verdict`, which ends the verdict on show.
    """

    capacity = 1024
    newest_only = False
    takes_no_verdict = False

    @abstractmethod
    def record(self, record: Record) -> None:
        """Receive the record of an event.

        Args:
            record: Record of any kind; see `edgead.streaming.record`. Not to be changed.

        Raises:
            EdgeadError: The sink cannot be written. Nothing of the record was written.
        """

    def skip(self, record: Record) -> bool:
        """Receive a record that a newer one has replaced, without writing it; for a sink with `newest_only`.

        Args:
            record: See `record`.

        Returns:
            Whether it is a verdict.
        """
        raise NotImplementedError

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Receive a verdict as its record. See `Sink.write`."""
        self.record(verdict_record(frame, verdict))

    def withheld(self, frame: Frame, reason: str) -> None:
        """Receive a missing verdict as its record. See `Sink.withheld`."""
        self.record(withheld_record(frame, reason))

    def state(self, change: StateChange) -> None:
        """Receive a change of the state as its record."""
        self.record(state_record(change))
