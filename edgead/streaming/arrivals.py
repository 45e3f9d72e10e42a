"""Cameras that are absent at the start of a stream with several: they are opened beside it, and join it later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from edgead.streaming.camera import Camera
from edgead.streaming.sinks.base import Sink
from edgead.streaming.sources import Source
from edgead.types import Closing

# Longest wait for the threads at the end; a thread that hangs ends with the process.
JOIN_S = 0.3


class Arrivals(Closing):
    """Cameras that are opened in threads of their own; a context manager, which closes their sources.

    Attributes:
        stop: Event that ends the wait for all cameras.
        sinks: Opened sinks of each camera by its name. The stream closes them.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.sinks: dict[str, Sequence[Sink]] = {}
        self._lock = threading.Lock()
        self._waiting = 0
        self._arrived: deque[tuple[str, Camera | Exception]] = deque()
        self._sources: list[Source] = []
        self._threads: list[threading.Thread] = []

    @property
    def expected(self) -> int:
        """Number of cameras that have not been taken."""
        with self._lock:
            return self._waiting + len(self._arrived)

    def expect(self, name: str, sinks: Sequence[Sink], open_it: Callable[[], Camera | None]) -> None:
        """Open a camera in a thread.

        Args:
            name: Name of the camera.
            sinks: Its opened sinks.
            open_it: Function that waits for the camera and opens it with these sinks; None after `stop`.
        """
        self.sinks[name] = sinks
        with self._lock:
            self._waiting += 1
        # A daemon thread: a driver that hangs must not keep the process alive.
        thread = threading.Thread(target=self._open, args=(name, open_it), name="edgead-arrival", daemon=True)
        self._threads.append(thread)
        thread.start()

    def take(self) -> tuple[str, Camera | Exception] | None:
        """Return the name of a camera that has come since the last call, and the camera, or None.

        In place of a camera that cannot be opened, or has not come in time, it is the error.
        """
        with self._lock:
            return self._arrived.popleft() if self._arrived else None

    def _open(self, name: str, open_it: Callable[[], Camera | None]) -> None:
        found: Camera | Exception | None
        try:
            found = open_it()
        except Exception as error:
            found = error
        with self._lock:
            self._waiting -= 1
            is_late = self.stop.is_set()
            if isinstance(found, Camera) and not is_late:
                self._sources.append(found.source)
            if found is not None and not is_late:
                self._arrived.append((name, found))
        if isinstance(found, Camera) and is_late:
            found.source.close()

    def close(self) -> None:
        """End the wait, and close the sources; may be called twice."""
        self.stop.set()
        end_s = time.monotonic() + JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        with self._lock:
            self._arrived.clear()
        for source in self._sources:
            source.close()
