"""A thread that reads frames from a source, so that capture and inference do not block each other.

For a live source only the newest frame is kept: it waits in a single slot, and the next frame replaces it, because a
verdict on a part that passed long ago is useless. A frame that a part needs is not replaced. For files every frame is
kept: a short queue lets decoding run ahead of inference, and the thread waits when the queue is full.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

from edgead.streaming.sources import Source
from edgead.types import Frame

QUEUE_FRAMES = 2
JOIN_S = 1.2

_log = logging.getLogger(__name__)


class Capture:
    """Frames of a source, read by a thread that runs while the context is open.

    Args:
        source: Opened source. It is stopped when the context ends; the caller closes it.
        is_needed: Function that is called with each frame, in the thread, and returns whether a part needs the frame,
            which is then kept until it is taken; None if newer frames replace all frames.
        ready: Event that is set when there is something to take or the source has ended; captures may share it.
    """

    def __init__(
        self,
        source: Source,
        is_needed: Callable[[Frame], bool] | None = None,
        ready: threading.Event | None = None,
    ) -> None:
        self._source = source
        self._is_needed = is_needed
        self._ready = threading.Event() if ready is None else ready
        self._is_last_kept = False
        self._capacity = 1 if source.live else QUEUE_FRAMES
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._stopped = False
        self._stopped_at_s = 0.0
        self._finished = False
        self._error: BaseException | None = None
        # A daemon thread: a read that hangs in a driver must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="edgead-capture", daemon=True)

    @property
    def dropped(self) -> int:
        """Number of frames of a live source that were not taken: a newer one came, or the end."""
        return self._dropped

    @property
    def ended(self) -> bool:
        """Whether the source has ended and its last frame was taken."""
        with self._changed:
            return self._finished and not self._frames and self._error is None

    def take(self, timeout_s: float) -> Frame | None:
        """Wait for the next frame and take it.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            The next frame, or None if no frame came in time or the source has ended.

        Raises:
            BaseException: The error that ended the source, after all frames before it are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                if self._frames or self._finished:
                    self._ready.set()
                self._changed.notify_all()
                return frame
            if self._error is not None:
                raise self._error
            return None

    def stop(self) -> None:
        """Make the thread end soon, without waiting for it; may be called twice."""
        self._source.stop()
        with self._changed:
            if not self._stopped:
                self._stopped, self._stopped_at_s = True, time.monotonic()
            self._changed.notify_all()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._source:
                if not self._put(frame):
                    break
        except BaseException as caught:
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()
        self._ready.set()

    def _put(self, frame: Frame) -> bool:
        """Queue a frame; return False after the context has ended."""
        is_kept = self._is_needed is not None and self._is_needed(frame)
        with self._changed:
            if self._source.live:
                # Only the last frame may be one that no part needs.
                if self._frames and not self._is_last_kept:
                    self._frames.pop()
                    self._dropped += 1
                self._is_last_kept = is_kept
            else:
                self._changed.wait_for(lambda: len(self._frames) < self._capacity or self._stopped)
            if self._stopped:
                self._dropped += self._source.live
                return False
            self._frames.append(frame)
            self._changed.notify_all()
        self._ready.set()
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        with self._changed:
            if self._source.live:
                self._dropped += len(self._frames)
                self._frames.clear()
        self._thread.join(max(0.0, self._stopped_at_s + JOIN_S - time.monotonic()))
        if self._thread.is_alive():
            _log.warning(
                "%s: the read did not return within %.1f s; it ends with the process",
                self._source.uri,
                JOIN_S,
            )
