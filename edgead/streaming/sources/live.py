"""Cameras, of this machine and of the network: an image not taken is gone, a lost camera is opened again.

A line runs for months: cables are pulled, switches restart, a USB camera falls off the bus. So a source that
has once given an image never ends by itself; it tries again for ever, waiting longer each time up to
`LONGEST_WAIT_S`. At the start it is the other way round: an address where nothing answers is an error at
once, because it is most likely a typo.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import cv2

from edgead.errors import SourceError
from edgead.streaming.sources.base import Source
from edgead.streaming.uri import without_password
from edgead.types import Frame, UInt8Array

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
NETWORK_TIMEOUT_MS = 5000

_log = logging.getLogger(__name__)


class Device(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: D102, N802 (OpenCV's name)

    def read(self) -> tuple[bool, UInt8Array | None]: ...  # noqa: D102

    def get(self, property_id: int, /) -> float: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


class LiveSource(Source):
    """A camera that is opened again whenever it stops giving images.

    open_device: opens the camera, BGR frames; called again after each loss. hint: what to do where nothing
    answers at the start. first_wait_s, longest_wait_s: pause after the first and before every later try; it
    doubles in between. Raises SourceError when the camera cannot be opened at the start.
    """

    live = True

    def __init__(
        self,
        uri: str,
        open_device: Callable[[], Device],
        hint: str,
        *,
        first_wait_s: float = FIRST_WAIT_S,
        longest_wait_s: float = LONGEST_WAIT_S,
    ) -> None:
        super().__init__(uri)
        self._open_device = open_device
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        # Held while the device is read or opened: releasing it under a running read would crash the process.
        self._in_use = threading.Lock()
        self._device: Device | None = open_device()
        if not self._device.isOpened():
            self._device.release()
            raise SourceError(f"no camera at {self.uri}: {hint}")
        fps = self._device.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def __iter__(self) -> Iterator[Frame]:
        index, tries = 0, 0
        while not self._stopping.is_set():
            image = self._read()
            if image is None:
                tries += 1
                self._reopen(tries)
                continue
            if tries:
                _log.warning("%s: images again, after %d tries", self.uri, tries)
                tries = 0
            yield Frame(image=image, index=index, captured_at_ns=time.monotonic_ns(), source=self.uri)
            index += 1

    def _read(self) -> UInt8Array | None:
        """The next image (H, W, 3) uint8 RGB, or None where the camera gives none."""
        with self._in_use:
            if self._device is None:
                return None
            try:
                good, image = self._device.read()
            except cv2.error:
                return None
            if not good or image is None or image.size == 0:
                return None
            colour = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
            rgb: UInt8Array = cv2.cvtColor(image, colour)
            return rgb

    def _reopen(self, tries: int) -> None:
        """Release the camera, wait, open it again."""
        wait_s = min(self._first_wait_s * 2.0 ** min(tries - 1, 30), self._longest_wait_s)
        if not self._stopping.is_set():
            _log.warning("%s: no image; opening it again in %.1f s (try %d)", self.uri, wait_s, tries)
        self._release()
        if self._stopping.wait(wait_s):
            return
        with self._in_use:
            if not self._stopping.is_set():
                self._device = self._open_device()

    def _release(self, timeout_s: float = -1) -> None:
        if self._in_use.acquire(timeout=timeout_s):
            try:
                if self._device is not None:
                    self._device.release()
                    self._device = None
            finally:
                self._in_use.release()

    def close(self) -> None:
        """Stop and release the camera.

        A read that hangs in the driver is not waited for: the camera is then released with the process.
        """
        self.stop()
        self._release(timeout_s=1.0)


def open_camera(number: str) -> LiveSource:
    """Open a camera of this machine by its number; raises SourceError where there is none."""
    if not (number.isascii() and number.isdigit() and len(number) <= 4):
        raise SourceError(f"camera:{number} is not a camera: give its number, such as camera:0")
    return LiveSource(
        f"camera:{number}",
        lambda: cv2.VideoCapture(int(number)),
        "check the cable, that no other program uses it, and its number with edgead doctor",
    )


def open_network(uri: str) -> LiveSource:
    """Open an RTSP or HTTP camera through FFmpeg, RTSP over TCP; raises SourceError where none answers."""
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        NETWORK_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        NETWORK_TIMEOUT_MS,
    ]
    return LiveSource(
        uri,
        lambda: cv2.VideoCapture(uri, cv2.CAP_FFMPEG, timeouts),
        f"check the address, the user and password, and that {without_password(uri).split('/')[2]} answers",
    )
