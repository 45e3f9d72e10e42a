"""Cameras of this machine and of the network: an image that is not taken is lost, a lost camera is opened again.

A production line runs for months: cables are pulled, switches restart, a USB camera drops off the bus. Therefore a
camera that was opened once never ends by itself; it is opened again and again, with longer pauses each time, up to
`LONGEST_WAIT_S`. At the start, however, an address that does not answer is an error at once, because it is probably a
typing error.

Images of a backlog are dropped: after each opening a camera with timestamps is read until its images come as fast as
it makes them. `edgead.streaming.sources.capture_time` describes the time of capture.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import cv2

from edgead.errors import AbsentSourceError, ImageError, SourceError
from edgead.streaming.pauses import FIRST_WAIT_S, LONGEST_WAIT_S, is_logged, pause_s
from edgead.streaming.sources.base import Source
from edgead.streaming.sources.capture_time import CaptureClock, Timestamps
from edgead.streaming.sources.ffmpeg import VideoDevice
from edgead.types import Frame, UInt8Array

# A camera whose images are older than this for so long has a backlog that it does not catch up with.
LATE_S = 1.0
LATE_FOR_S = 5.0
# Time that a read gets after the stop, before the camera is left to the end of the process.
CLOSE_S = 1.0

_log = logging.getLogger(__name__)


class Device(Protocol):
    """The methods of `cv2.VideoCapture` that are used here. They may raise SourceError for a lost camera.

    `read` may raise ImageError for a broken image, after which the next one can be read. It may return True without an
    image if none has come yet, so that a stop does not wait for an image.
    """

    def isOpened(self) -> bool: ...  # noqa: D102, N802 (OpenCV's name)

    def read(self) -> tuple[bool, UInt8Array | None]: ...  # noqa: D102

    def get(self, property_id: int, /) -> float: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


class LiveSource(Source):
    """A camera that is opened again whenever it stops giving images.

    A broken image is left out together with its index, and counted. The first of several is logged. Of the tries to
    open a camera again, the first, second, fourth, eighth and so on are logged.

    Args:
        uri: Address of the camera.
        open_device: Function that opens the camera, which gives BGR images; called again after each loss.
        hint: Hint of the error if the camera does not answer at the start.
        first_wait_s: Longest pause before the camera is opened again for the first time, in seconds; it doubles with
            each try. The pause is a random share of it, from a half to the whole.
        longest_wait_s: Longest pause between two tries, in seconds.
        period_s: Time from one read to the next, in seconds; 0 for a camera that sets its own rate.
        timestamps: Meaning of the device's `CAP_PROP_POS_MSEC`.
        longest_read_s: Time limit of a read, in seconds. FFmpeg ends a read at its limit with an image that its decoder
            held back, if there is one.

    Raises:
        AbsentSourceError: The camera cannot be opened at the start.
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
        period_s: float = 0.0,
        timestamps: Timestamps = "none",
        longest_read_s: float = math.inf,
    ) -> None:
        super().__init__(uri)
        self._open_device = open_device
        self._first_wait_s, self._longest_wait_s, self._period_s = first_wait_s, longest_wait_s, period_s
        self._timestamps, self._longest_read_s = timestamps, longest_read_s
        self._reason = ""
        self._late_since_s: float | None = None
        self._stopped_at_s = math.inf
        # Held while the device is read or opened: a release during a read would crash the process.
        self._in_use = threading.Lock()
        self._device: Device | None = open_device()
        if not self._device.isOpened():
            self._device.release()
            raise AbsentSourceError(f"no camera at {self.uri}", hint=hint)
        fps = self._device.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None
        self.by_signal = getattr(self._device, "waits_for_signal", False)
        self._clock = self._new_clock()

    def __iter__(self) -> Iterator[Frame]:
        index, tries, due_s, was_whole = 0, 0, time.monotonic(), True
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + self._period_s, time.monotonic())
            try:
                taken = self._read()
            except ImageError as error:
                if was_whole:
                    _log.warning("%s: left out: %s", self.uri, error)
                was_whole, self.trouble = False, "its images are damaged"
                self.broken += 1
                index += 1
                continue
            if taken is None:
                tries += 1
                self._reopen(tries)
                continue
            if tries:
                _log.warning("%s: images again, after %d tries", self.uri, tries)
                tries = 0
            was_whole, self.trouble = True, None
            image, captured_at_ns = taken
            if self._clock.in_time:
                yield Frame(image=image, index=index, captured_at_ns=captured_at_ns, source=self.uri)
            else:
                self.dropped += 1
            index += 1

    def _read(self) -> tuple[UInt8Array, int] | None:
        """Read the next image, (H, W, 3) uint8 RGB, with its time of capture; None if the camera is lost."""
        with self._in_use:
            if self._device is None:
                return None
            self._reason, good, image = "no image", True, None
            try:
                while good and image is None and not self._stopping.is_set():
                    asked_ns = time.monotonic_ns()
                    good, image = self._device.read()
            except cv2.error:
                return None
            except SourceError as error:
                self._reason = self._without_uri(error)
                return None
            came_ns = time.monotonic_ns()
            if (
                not good
                or image is None
                or image.size == 0
                or came_ns - asked_ns > self._longest_read_s * 1e9
            ):
                return None
            stamp_ms = self._device.get(cv2.CAP_PROP_POS_MSEC)
        captured_at_ns = self._clock.captured_at_ns(stamp_ms, asked_ns, came_ns)
        if self._stays_late((came_ns - captured_at_ns) / 1e9, came_ns / 1e9):
            self._reason = "its images stay late"
            return None
        colour = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
        rgb: UInt8Array = cv2.cvtColor(image, colour)
        return rgb, captured_at_ns

    def _stays_late(self, age_s: float, now_s: float) -> bool:
        """Return True if all images have been late for a while, so that the camera is to be opened again."""
        if age_s <= LATE_S:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = now_s
        elif now_s - self._late_since_s > LATE_FOR_S:
            self._late_since_s = None
            return True
        return False

    def _new_clock(self) -> CaptureClock:
        """Make the clock of a session with the device."""
        codec = getattr(self._device, "codec", "")
        # FFmpeg takes the next image of these codecs for the end of an image.
        held_back = int(self._timestamps == "stream" and codec.lower() in ("h264", "hevc"))
        return CaptureClock(self._timestamps, held_back)

    def _reopen(self, tries: int) -> None:
        """Release the camera, wait, and open it again."""
        wait_s = pause_s(tries, self._first_wait_s, self._longest_wait_s)
        self.trouble = self._reason
        if not self._stopping.is_set() and is_logged(tries):
            _log.warning("%s: %s; opening it again in %.1f s (try %d)", self.uri, self._reason, wait_s, tries)
        self._release()
        if self._stopping.wait(wait_s):
            return
        with self._in_use:
            if not self._stopping.is_set():
                try:
                    self._device = self._open_device()
                    self._clock = self._new_clock()
                    if self.by_signal:
                        # The next image may come much later.
                        self.trouble = None
                except SourceError as error:
                    self._reason = self._without_uri(error)

    def _without_uri(self, error: SourceError) -> str:
        """Return the problem of a camera without its address, which begins the line of the log."""
        return error.what.removeprefix(f"{self.uri} ").replace(f" at {self.uri}", "")

    def _release(self, timeout_s: float = -1) -> None:
        """Release the device, unless a read does not return within `timeout_s` seconds; -1 waits without limit."""
        if self._in_use.acquire(timeout=timeout_s):
            try:
                if self._device is not None:
                    self._device.release()
                    self._device = None
            finally:
                self._in_use.release()

    def stop(self) -> None:
        """Make the iteration end soon. See `Source.stop`."""
        self._stopped_at_s = min(self._stopped_at_s, time.monotonic())
        super().stop()

    def close(self) -> None:
        """Stop and release the camera.

        If a read hangs in the driver, the camera is released when the process ends.
        """
        self.stop()
        # Since the stop, so that several cameras that hang take no longer than one.
        self._release(timeout_s=max(0.0, self._stopped_at_s + CLOSE_S - time.monotonic()))


def open_camera(number: str) -> LiveSource:
    """Open a camera of this machine.

    Args:
        number: Number of the camera, as decimal digits.

    Returns:
        The opened camera.

    Raises:
        SourceError: The number is invalid, or no camera has it.
    """
    if not (number.isascii() and number.isdigit() and len(number) <= 4):
        raise SourceError(f"camera:{number} is not a camera", hint="give its number, such as camera:0")
    return LiveSource(
        f"camera:{number}",
        lambda: VideoDevice(cv2.VideoCapture(int(number)), f"camera:{number}"),
        "check the cable, that no other program uses it, and its number with edgead doctor",
        # The timestamps of V4L2 buffers, on Linux.
        timestamps="monotonic",
    )
