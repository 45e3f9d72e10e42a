"""What the loop knows of a source: frames one after another, and whether they wait for whoever takes them."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator

from edgead.streaming.uri import without_password
from edgead.types import Closing, Frame


class Source(Closing):
    """An opened source of frames: iterated once, in one thread; a context manager.

    uri: its address, without a password. live: frames that are not taken in time are gone, so the newest is
    the one to score; where False, every frame waits to be taken. fps: its nominal rate in frames a second,
    None where unknown.
    """

    live: bool = False

    def __init__(self, uri: str, fps: float | None = None) -> None:
        self.uri = without_password(uri)
        self.fps = fps
        self._stopping = threading.Event()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Give the frames. Raises SourceError or ImageError where a fault ends them."""

    def stop(self) -> None:
        """Ask the iteration to end soon; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and release what the source holds; may be called twice."""
        self.stop()
