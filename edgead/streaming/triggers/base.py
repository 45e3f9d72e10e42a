"""Interface of triggers, which announce that a part has come."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod

from edgead.streaming.freshness import Problem
from edgead.streaming.line import LineControl
from edgead.streaming.pauses import is_logged
from edgead.text import printable
from edgead.types import Closing

# Text that comes with a trigger, such as a serial number. It comes from another machine, so it is bounded.
MOST_ID_CHARACTERS = 128
MOST_ID_BYTES = 4 * MOST_ID_CHARACTERS
# Longest time in which `close` waits for a thread; a thread that hangs ends with the process.
JOIN_S = 0.3

_LATE = Problem("late", "the trigger came late, while it was not watched")

_log = logging.getLogger(__name__)


class Trigger(Closing):
    """An opened trigger: a context manager.

    Attributes:
        name: Address of the trigger, without secrets, for messages.
    """

    name = ""

    @abstractmethod
    def start(self, line: LineControl) -> None:
        """Begin to announce parts; called once.

        Args:
            line: Control of the stream, with `line.parts`. While the trigger does not work, `line.trouble` is set.
        """


class ThreadTrigger(Trigger):
    """A trigger that runs in a thread of its own."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, line: LineControl) -> None:
        """Start the thread. See `Trigger.start`."""
        # A daemon thread: a call that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, args=(line,), name="edgead-trigger", daemon=True)
        self._thread.start()

    def _work(self, line: LineControl) -> None:
        """Run, and report an error that nobody expected: without a word every part would pass without a verdict."""
        try:
            self._run(line)
        except Exception as error:
            report_trouble(line, self.name, f"it has failed ({type(error).__name__}: {error})")

    @abstractmethod
    def _run(self, line: LineControl) -> None:
        """Announce parts until `self._stopping` is set."""

    def close(self) -> None:
        """Stop the thread; may be called twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)


def announce(line: LineControl, text: bytes, at_ns: int, *, is_late: bool = False) -> int | None:
    """Announce a part.

    Args:
        line: Control of the stream.
        text: Text that came with the trigger. It may be anything.
        at_ns: Time of the trigger, from `time.monotonic_ns`.
        is_late: Whether the part may have passed long ago, so that it gets no verdict.

    Returns:
        Number of the trigger; None if it is missed. See `PartQueue.add`.
    """
    assert line.parts is not None, "a trigger is started for a stream of parts only"
    shown = printable(text[:MOST_ID_BYTES].decode("utf-8", "replace").strip())[:MOST_ID_CHARACTERS]
    return line.parts.add(shown or None, at_ns, _LATE if is_late else None)


def report_trouble(line: LineControl, name: str, reason: str, tries: int = 1) -> None:
    """Report that a trigger does not work, so that parts may pass without a verdict.

    Args:
        line: Control of the stream.
        name: Address of the trigger, without secrets.
        reason: Reason, as text.
        tries: Number of the failure since the trigger worked; the first, second, fourth, eighth ... is logged.
    """
    line.trouble = f"the trigger does not work: {printable(reason)}"
    if is_logged(tries):
        _log.warning("trigger %s: %s (try %d)", printable(name), printable(reason), tries)
