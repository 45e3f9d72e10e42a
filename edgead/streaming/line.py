"""Messages to a stream: a part has come, pause, resume, the state of the trigger, and a new threshold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from edgead.streaming.freshness import Problem
from edgead.streaming.parts import PartQueue
from edgead.streaming.policy import PartRule
from edgead.types import Frame

PAUSED = Problem("paused", "the stream is paused")
"""Problem of a stream while it is paused."""


class NewThreshold(NamedTuple):
    """A decision threshold for the next frames, and the name of who set it."""

    value: float
    by: str


class LineControl:
    """Control of a stream by its line or by people; may be used from any thread.

    Args:
        rule: Rule of the verdicts on parts that a trigger announces; None for a verdict on each frame.

    Attributes:
        parts: Parts that wait for their verdicts; None for a verdict on each frame.
        on_frame: Function that is called with each frame in the capture thread, for a trigger that looks at images.
        trouble: Reason why the trigger does not work now, as text; None if it works.
    """

    def __init__(self, rule: PartRule | None = None) -> None:
        self.parts = None if rule is None else PartQueue(rule)
        self.on_frame: Callable[[Frame], None] | None = None
        self.trouble: str | None = None
        # One value without a lock, because a signal handler may set it.
        self._pause: tuple[bool, str | None] = (False, None)
        self._thresholds: deque[NewThreshold] = deque()

    @property
    def is_paused(self) -> bool:
        """Whether the stream gives no verdicts for now."""
        return self._pause[0]

    @property
    def set_by(self) -> str | None:
        """Name of who paused or resumed the stream last; None if it is not known."""
        return self._pause[1]

    def pause(self, by: str | None = None) -> None:
        """Give no verdicts until `resume`.

        Args:
            by: Name of who pauses the stream.
        """
        self._pause = True, by

    def resume(self, by: str | None = None) -> None:
        """Give verdicts again.

        Args:
            by: Name of who resumes the stream.
        """
        self._pause = False, by

    def set_threshold(self, value: float, by: str) -> None:
        """Decide with another threshold from the next frame on.

        Args:
            value: Decision threshold, a finite number.
            by: Name of who sets it.
        """
        self._thresholds.append(NewThreshold(value, by))

    def take_threshold(self) -> NewThreshold | None:
        """Return the next threshold that was set since the last call; None if there is none."""
        return self._thresholds.popleft() if self._thresholds else None

    def problem(self) -> Problem | None:
        """Return the problem of the whole stream: it is paused, or its trigger does not work."""
        if self.is_paused:
            return PAUSED
        trouble = self.trouble
        return None if trouble is None else Problem("no_trigger", trouble)

    def needs(self, frame: Frame) -> bool:
        """Show a frame that was just captured to the trigger; return whether a part needs the frame."""
        if self.on_frame is not None:
            self.on_frame(frame)
        return self.parts is not None and self.parts.claim(frame)
