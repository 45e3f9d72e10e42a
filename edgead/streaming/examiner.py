"""The frames in hand: each is examined before it is scored.

Frames of several cameras that are there at one moment, because one light barrier triggers all of them, are examined at
the same time in threads. OpenCV leaves the interpreter to the others meanwhile. Only as many are taken ahead of the
model as it scores within `AHEAD_S`: an image that waits becomes old, and a newer one could have its place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from edgead.streaming.examination import Examined
from edgead.types import Closing

if TYPE_CHECKING:
    from edgead.streaming.judge import Judge

AHEAD_S = 0.005


@dataclass(frozen=True, eq=False)
class Taken:
    """A frame in hand.

    Attributes:
        judge: Judge of its camera.
        taken_ns: Time at which it was taken, from `time.monotonic_ns`.
        examined: The examination, which may not have ended.
    """

    judge: Judge
    taken_ns: int
    examined: Future[Examined]


class Examiner(Closing):
    """Frames in hand, in the order in which they were taken; for the thread of the loop.

    Args:
        cameras: Number of cameras.
        batch: Largest number of frames to score together.
        ready: Event that is set when an examination has ended.

    Attributes:
        score_s: Time that the model took for the last frame, in seconds.
    """

    def __init__(self, cameras: int, batch: int, ready: threading.Event) -> None:
        self.score_s = AHEAD_S
        self._cameras, self._batch, self._ready = cameras, batch, ready
        self._taken: list[Taken] = []
        threads = min(cameras, len(os.sched_getaffinity(0)))
        # On a single core, threads would only share the time of the first frame with the others.
        self._pool = ThreadPoolExecutor(threads, "edgead-examiner") if threads > 1 else None

    @property
    def room(self) -> int:
        """Number of frames that may be taken now."""
        ahead = min(int(AHEAD_S / max(self.score_s, 1e-6)), self._cameras)
        return max(self._batch, ahead if self._pool is not None else 1) - len(self._taken)

    def has_frame_of(self, judge: Judge) -> bool:
        """Return whether a frame of a camera is in hand."""
        return any(one.judge is judge for one in self._taken)

    def begin(self, judge: Judge, taken_ns: int, examine: Callable[[], Examined]) -> None:
        """Begin to examine a frame.

        Args:
            judge: Judge of its camera.
            taken_ns: Time at which the frame was taken.
            examine: Function that examines it; called once, in any thread.
        """
        if self._pool is None or (self.room == 1 and not self._taken):
            examined = Future[Examined]()
            try:
                examined.set_result(examine())
            except Exception as error:
                examined.set_exception(error)
        else:
            examined = self._pool.submit(examine)
            examined.add_done_callback(lambda _: self._ready.set())
        self._taken.append(Taken(judge, taken_ns, examined))

    def take(self) -> list[Taken]:
        """Take the frames to score together, in the order in which they came, whose examinations have ended."""
        done = list(takewhile(lambda one: one.examined.done(), self._taken))
        if self._batch > 1 and len(done) < len(self._taken):
            # They are there at one moment, and the examination of the others ends soon.
            return []
        found, self._taken = done[: self._batch], self._taken[len(done[: self._batch]) :]
        return found

    def close(self) -> None:
        """End the threads; may be called twice."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
