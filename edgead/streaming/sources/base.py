"""Interface of sources, which give frames one after another."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator

from edgead.files.addresses import without_secrets
from edgead.types import Closing, Frame


class Source(Closing):
    """An opened source of frames: a context manager that is iterated once, in one thread.

    Args:
        uri: Address of the source.
        fps: Nominal frame rate in frames per second, None if unknown.

    Attributes:
        live: True if frames that are not taken in time are lost, so that only the newest is scored; False if every
            frame waits until it is taken.
        endless: True if a source that is not live never ends by itself.
        by_signal: True if a live source gives a frame for each signal of the line, so that a gap is no fault.
        uri: Address of the source, without secrets.
        fps: Nominal frame rate in frames per second, None if unknown.
        broken: Number of images so far that were left out because they are broken.
        dropped: Number of frames so far that were not yielded because they were old: the backlog of a camera.
        trouble: Present reason why no frame comes, as text; None if none is known.
    """

    live: bool = False
    endless: bool = False
    by_signal: bool = False

    def __init__(self, uri: str, fps: float | None = None) -> None:
        self.uri = without_secrets(uri)
        self.fps = fps
        self.broken = 0
        self.dropped = 0
        self.trouble: str | None = None
        self._stopping = threading.Event()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Yields:
            The next frame.

        Raises:
            SourceError: The source cannot be read.
            ImageError: An image file cannot be read.
        """

    def stop(self) -> None:
        """Make the iteration end soon; may be called from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Stop the iteration and release all resources; may be called twice."""
        self.stop()
