"""Store and forward: records go to the disk first, and from there to a receiver that may be away.

Records are appended to a `Spool`, the oldest are sent, and what the receiver has confirmed is removed. So a record is
lost only if the disk fails or the spool is full, and records arrive in order. Every record has the name of the spool
and its number in it: if a confirmation gets lost, the receiver gets the record again and recognises it.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from pathlib import Path

from edgead.errors import EdgeadError
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
# Time between two looks of `close` at the records that wait.
_LOOK_S = 0.002

_log = logging.getLogger(__name__)


class StoredSink(RecordSink):
    """A sink that stores records on the disk, to be sent from there in order.

    Args:
        spool: File of the records that wait; it is made if it is missing. Records of an earlier stream are sent first.
        keep: Largest number of records that wait.

    Raises:
        EdgeadError: The spool cannot be opened, or another process uses it.
    """

    def __init__(self, spool: Path, keep: int = KEEP_RECORDS) -> None:
        self._place = str(spool)
        self._spool = Spool(spool, keep)
        self._is_closed = self._is_reported = False
        self._trouble: str | None = None

    def record(self, record: Record) -> None:
        """Store the record. See `RecordSink.record`."""
        self._spool.append(record.text)
        self._forward()

    def tick(self) -> None:
        """Send what waits."""
        self._forward()

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
        while waiting and self._is_sending():
            now_s = time.monotonic()
            patience_s = CLOSE_S if self.hurry or self._trouble is not None else ANSWER_S
            if now_s - (start_s if self.hurry else self.answered_at_s) > patience_s:
                break
            time.sleep(_LOOK_S)
            self._forward()
            waiting, before = len(self._spool), waiting
            if waiting < before:
                self.answered_at_s = now_s
        self._end()
        if waiting := len(self._spool):
            _log.warning("%s: %d records wait in %s for the next stream", self.name, waiting, self._place)
        self._spool.close()

    @abstractmethod
    def _forward(self) -> None:
        """Send what waits on, without a wait for confirmations; called after each record and several times a second."""

    def _is_sending(self) -> bool:
        """Return False if nothing will be sent any more."""
        return True

    def _end(self) -> None:
        """End with sending, before the spool is closed."""

    def _report(self, reason: str | None) -> None:
        """Remember why the receiver cannot be reached, or that it can; log a change."""
        self._trouble = reason
        if reason is not None and not self._is_reported:
            _log.warning("%s: %s; records wait in %s", self.name, reason, self._place)
        elif reason is None and self._is_reported:
            _log.warning("%s: works again", self.name)
        self._is_reported = reason is not None


class SentSink(StoredSink):
    """A stored sink with a thread that sends one record after another and waits for each confirmation.

    Args:
        spool: See `StoredSink`.
        keep: See `StoredSink`.

    Raises:
        EdgeadError: See `StoredSink`.
    """

    def __init__(self, spool: Path, keep: int = KEEP_RECORDS) -> None:
        super().__init__(spool, keep)
        self._changed = threading.Condition()
        self._closing = False
        self._bug: BaseException | None = None
        self._sender = threading.Thread(target=self._run, name="edgead-sender", daemon=True)

    @abstractmethod
    def _send(self, message: str) -> bool:
        """Send a message and wait for its confirmation.

        Args:
            message: JSON text of the record.

        Returns:
            Whether the receiver has confirmed it; otherwise it is given again. False only after a wait, or if the sink
            is being closed.
        """

    def start(self) -> None:
        """Start the thread that sends; called at the end of `__init__` of a subclass."""
        self._sender.start()

    def record(self, record: Record) -> None:
        """Store the record. See `RecordSink.record`."""
        self._raise_bug()
        super().record(record)

    def tick(self) -> None:
        """Raise the error that ended the thread that sends: a bug, because errors of the disk are survived."""
        self._raise_bug()

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _forward(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_sending(self) -> bool:
        return self._sender.is_alive()

    def _end(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._sender.join(JOIN_S)

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
                self._send_oldest()
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

    def _send_oldest(self) -> None:
        """Send the oldest record, and remove it if it is confirmed."""
        ((number, text),) = self._spool.first(1)
        if self._send(numbered(self._spool, number, text)):
            self._spool.remove_through(number)


def numbered(spool: Spool, number: int, text: str) -> str:
    """Return the JSON text of an entry with the name of its spool and its number."""
    return f'{{"spool": "{spool.id}", "number": {number}, {text[1:]}'
