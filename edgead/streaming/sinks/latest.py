"""The latest state of a stream, for controllers: they act on the newest verdict and have no use for old ones.

A controller must never take an old "good" for a new one. So a verdict ends with the next image that gets none, with a
trigger with the next part that gets none, with the signal, and `VALID_S` after it came, because the inference may hang.
Only a copy of the image before it ends no verdict until `max_age`: cameras repeat single images.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass

from edgead.files.records import utc_now
from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.state import State

VALID_S = 3.0


@dataclass(slots=True)
class LatestState:
    """State of a stream.

    Attributes:
        state: State of the stream.
        state_reason: Reason why the stream is degraded or has no signal; empty otherwise.
        reason: Reason why the latest frame has no verdict; otherwise the one of the state.
        verdict: Record of the verdict on the latest frame; None if it has none.
        verdict_at_s: Time at which that verdict came, from `time.monotonic`.
        good: Number of good frames, with a trigger of good parts.
        rejected: Number of rejected frames or parts.
        withheld: Number of frames that got no verdict because they were late or not finite; with a trigger, number of
            parts without a verdict, the missed ones included.
        time: Time of the latest change, UTC in ISO 8601; empty before the first event.
    """

    state: State = "starting"
    state_reason: str = ""
    reason: str = ""
    verdict: Record | None = None
    verdict_at_s: float = 0.0
    good: int = 0
    rejected: int = 0
    withheld: int = 0
    time: str = ""

    def take(self, record: Record) -> None:
        """Change with a record of any kind."""
        event, self.time = record["event"], record["time"]
        if event == "verdict":
            self.reason = self.state_reason
            # A part can be decided although its trigger is gone by now.
            silent = self.state in ("no_signal", "paused", "stopped")
            self.verdict, self.verdict_at_s = None if silent else record, time.monotonic()
            self.rejected += record["is_anomalous"]
            self.good += not record["is_anomalous"]
        elif event == "withheld":
            self.withheld += 1
            self.verdict, self.reason = None, record["reason"]
        elif event == "no_verdict":
            self.verdict, self.reason = None, record["reason"]
        elif event == "missed":
            self.withheld += record["triggers"]
            self.verdict, self.reason = None, record["reason"]
        elif event == "state":
            self.state = record["state"]
            self.reason = self.state_reason = record["reason"]
            if not self.is_running:
                self.verdict = None

    @property
    def is_running(self) -> bool:
        """Whether the stream gives verdicts."""
        return self.state in ("running", "degraded")

    def expire(self) -> bool:
        """Drop a verdict that is too old to act on; return True if there was one."""
        if self.verdict is None or time.monotonic() - self.verdict_at_s <= VALID_S:
            return False
        self.verdict, self.reason, self.time = None, f"no verdict for {VALID_S:g} s", utc_now("milliseconds")
        return True

    def stop(self) -> None:
        """End with the stream."""
        self.state, self.verdict, self.reason, self.time = "stopped", None, "", utc_now("milliseconds")


class LatestSink(RecordSink):
    """A sink that shows the latest state and keeps no history: of the records that wait, it writes the newest.

    A record that could not be written is lost and not given again. The state is shown as soon as it can be, from
    `tick`.

    Attributes:
        latest: Latest state of the stream.
    """

    newest_only = True

    def __init__(self) -> None:
        self.latest = LatestState()
        self._is_closed = False

    def record(self, record: Record) -> None:
        """Show the state after a record. See `RecordSink.record`."""
        self.skip(record)
        self._show()

    def skip(self, record: Record) -> bool:
        """Receive a record that a newer one has replaced. See `RecordSink.skip`."""
        self.latest.take(record)
        return bool(record["event"] == "verdict")

    def tick(self) -> None:
        """Show the state again if that is due.

        Raises:
            EdgeadError: The place of the sink does not have the latest state.
        """
        if self.latest.expire() or self._is_due():
            self._show()

    def close(self) -> None:
        """Show that the stream has stopped.

        Raises:
            EdgeadError: It cannot be shown.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.latest.stop()
        try:
            self._show()
        finally:
            self._end()

    def _is_due(self) -> bool:
        """Return True if the state is to be shown although it has not changed."""
        return False

    @abstractmethod
    def _show(self) -> None:
        """Write `latest`, or raise an EdgeadError."""

    @abstractmethod
    def _end(self) -> None:
        """Release what the sink holds."""
