"""Store and forward: records go to the disk first, and from there to a receiver that may be away.

One thread appends records to a `Spool`, another one sends the oldest and removes what the receiver has confirmed. So a
record is lost only if the disk fails or the spool is full, and records arrive in order. Every record has the name of
the spool and its number in it: if a confirmation gets lost, the receiver gets the record again and recognises it.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from edgead.errors import EdgeadError
from edgead.files.parsing import json_text
from edgead.files.spool import Spool
from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink

KEEP_RECORDS = 100_000
# Pause after a failure.
RETRY_S = 1.0
# Longest wait of `close` for the next confirmation of a receiver that works.
ANSWER_S = 2.0
# The same for a receiver that does not work; after a stop, for all confirmations.
CLOSE_S = 0.5
# Longest wait of `close` for the thread that sends. After a stop there is time for both, see `deliveries.END_S`.
JOIN_S = 0.2

_log = logging.getLogger(__name__)


class StoredSink(RecordSink):
    """A sink that sends records from the disk, in order.

    Args:
        spool: File of the records that wait; it is made if it is missing. Records of an earlier stream are sent first.
        keep: Largest number of records that wait.

    Attributes:
        batch: Largest number of records that are sent before the first of them is confirmed.

    Raises:
        EdgeadError: The spool cannot be opened, or another process uses it.
    """

    batch = 1

    def __init__(self, spool: Path, keep: int = KEEP_RECORDS) -> None:
        self._place = str(spool)
        self._spool = Spool(spool, keep)
        self._changed = threading.Condition()
        self._closing = self._is_closed = self._is_reported = False
        self._trouble: str | None = None
        self._bug: BaseException | None = None
        self._sender = threading.Thread(target=self._run, name="edgead-sender", daemon=True)

    @abstractmethod
    def _send(self, messages: Sequence[str]) -> int:
        """Send messages in order and wait for their confirmations.

        Args:
            messages: JSON texts of the records, 1 or more.

        Returns:
            Number of messages, from the first on, that the receiver has confirmed; the others are given again. Fewer
            than all only after a wait, or if the sink is being closed.
        """

    def start(self) -> None:
        """Start the thread that sends; called at the end of `__init__` of a subclass."""
        self._sender.start()

    def record(self, record: Record) -> None:
        """Store the record. See `RecordSink.record`."""
        self.tick()
        self._spool.append(json_text(record, indent=None).rstrip("\n"))
        with self._changed:
            self._changed.notify_all()

    def tick(self) -> None:
        """Raise the error that ended the thread that sends: a bug, because errors of the disk are survived."""
        if self._bug is not None:
            raise self._bug

    def problem(self) -> str | None:
        """Return why records wait on the disk. See `Sink.problem`."""
        if self._trouble is None and not (self._is_closed and len(self._spool)):
            return None
        return f"{self._trouble or 'it was stopped'}; {len(self._spool)} records wait in {self._place}"

    def close(self) -> None:
        """Send what waits as long as the receiver confirms, and close the spool, which keeps the rest."""
        if self._is_closed:
            return
        self._is_closed = True
        start_s = self.answered_at_s = time.monotonic()
        waiting = len(self._spool)
        while waiting and self._sender.is_alive():
            now_s = time.monotonic()
            patience_s = CLOSE_S if self.hurry or self._trouble is not None else ANSWER_S
            if now_s - (start_s if self.hurry else self.answered_at_s) > patience_s:
                break
            time.sleep(0.01)
            waiting, before = len(self._spool), waiting
            if waiting < before:
                self.answered_at_s = now_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._sender.join(JOIN_S)
        if waiting := len(self._spool):
            _log.warning("%s: %d records wait in %s for the next stream", self.name, waiting, self._place)
        self._spool.close()

    def _wait(self, seconds: float) -> None:
        """Wait before another try, or until the sink is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _run(self) -> None:
        try:
            self._send_until_closed()
        except BaseException as error:
            self._bug = error

    def _send_until_closed(self) -> None:
        failure: str | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or len(self._spool))
            if self._closing:
                return
            try:
                self._send_some()
            except EdgeadError as error:
                if self._is_closed:
                    # The spool was closed while the receiver took its time; the records in it stay.
                    return
                # The disk fails. Records that were sent may be sent again.
                failure = str(error)
                self._report(failure)
                self._wait(RETRY_S)
            else:
                # A sender reports its receiver, which may be well all the time.
                if failure is not None and self._trouble == failure:
                    self._report(None)
                failure = None

    def _send_some(self) -> None:
        """Send the oldest records, and remove the confirmed ones."""
        entries = self._spool.first(self.batch)
        name = self._spool.id
        confirmed = self._send(
            [f'{{"spool": "{name}", "number": {number}, {text[1:]}' for number, text in entries]
        )
        if confirmed:
            self._spool.remove_through(entries[confirmed - 1][0])

    def _report(self, reason: str | None) -> None:
        """Remember why the receiver cannot be reached, or that it can; log a change."""
        self._trouble = reason
        if reason is not None and not self._is_reported:
            _log.warning("%s: %s; records wait in %s", self.name, reason, self._place)
        elif reason is None and self._is_reported:
            _log.warning("%s: works again", self.name)
        self._is_reported = reason is not None
