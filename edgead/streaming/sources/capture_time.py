"""Time of capture of the images of a camera, and the end of its backlog.

A decoder, a network and a buffer hold images back, so an image that has just come is not new. Cameras send a timestamp
with each image. The difference between the time at which an image comes and its timestamp is smallest for the image
that was held back least, and every later difference above this minimum is time that an image was held back. The
minimum itself, the shortest way from the sensor to the program, cannot be seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Literal, TypeAlias

Timestamps: TypeAlias = Literal["stream", "camera", "monotonic", "request", "none"]
"""Meaning of a device's `CAP_PROP_POS_MSEC`, in milliseconds:

"stream"     clock of the camera with any start, such as the time of RTP
"camera"     the same, of a camera that sends its first image after it was opened, so that there is no backlog
"monotonic"  clock of this machine at the capture, such as the timestamp of a V4L2 buffer
"request"    none; an image is as new as the request for it, or newer
"none"       none; an image counts as new when it comes
"""

# Clocks of cameras differ from the clock of this machine by less than this share.
_DRIFT = 2e-4
# A buffer whose first timestamp is older has another clock.
_LONGEST_HELD_S = 60.0
_PERIODS = 9
# A camera in time needs this share of its own time at least; a backlog is read much faster.
_IN_TIME = 0.7
_BACKLOG_GAPS = 3
_LONG_GAP_S = 0.2
_STALL_PERIODS = 4.0
_STALL_S = 1.0
_LONGEST_BACKLOG_S = 2.0


class CaptureClock:
    """Computes the time of capture of each image of one session, from the opening of a camera to its loss.

    Args:
        timestamps: Meaning of the device's timestamps.
        held_back: Number of images that the decoder holds back at least, because it takes the next image for the end of
            an image.

    Attributes:
        in_time: False while the images of a backlog are read: after the opening of a camera with timestamps "stream",
            and after a gap of a camera with timestamps "none".
    """

    def __init__(self, timestamps: Timestamps, held_back: int = 0) -> None:
        self._timestamps, self._held_back = timestamps, held_back
        self.in_time = timestamps != "stream"
        self._offset_s = math.inf
        self._clocks_agree = False
        self._last: tuple[float, float] | None = None
        self._periods: deque[float] = deque(maxlen=_PERIODS)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_BACKLOG_GAPS)
        self._backlog_until_s = math.inf

    def captured_at_ns(self, stamp_ms: float, asked_ns: int, came_ns: int) -> int:
        """Return the time of capture of an image, and update `in_time`.

        Args:
            stamp_ms: Timestamp of the image in milliseconds, in the meaning of `timestamps`.
            asked_ns: Time before the image was read, from `time.monotonic_ns`.
            came_ns: Time after the image was read.

        Returns:
            Time of capture in nanoseconds on the clock of `time.monotonic_ns`, at most `came_ns`.
        """
        if self._timestamps == "request":
            return asked_ns
        if self._timestamps == "monotonic":
            held_s = came_ns / 1e9 - stamp_ms / 1e3
            # After they agreed once, an old timestamp means an old image: this process was stopped for a while.
            self._clocks_agree = self._clocks_agree or 0.0 <= held_s < _LONGEST_HELD_S
            return came_ns - (int(max(held_s, 0.0) * 1e9) if self._clocks_agree else 0)
        came_s, stamp_s = came_ns / 1e9, stamp_ms / 1e3
        last, self._last = self._last, (came_s, stamp_s)
        gap_s = 0.0 if last is None else came_s - last[0]
        if self._timestamps == "none":
            self._watch_gaps(gap_s, came_s)
            return came_ns
        if last is not None:
            self._watch_stamps(gap_s, stamp_s - last[1])
        delay_s = came_s - stamp_s
        self._offset_s = min(delay_s, self._offset_s + _DRIFT * gap_s)
        held_s = delay_s - self._offset_s
        if self._held_back and self._periods:
            held_s += self._held_back * median(self._periods)
        return came_ns - int(held_s * 1e9)

    def _watch_stamps(self, gap_s: float, stamp_gap_s: float) -> None:
        """Find out whether images come as fast as the camera makes them, or faster, out of a buffer."""
        if stamp_gap_s > 0.0:
            self._periods.append(stamp_gap_s)
        self._recent.append((gap_s, stamp_gap_s))
        enough = len(self._recent) == _BACKLOG_GAPS or gap_s >= _LONG_GAP_S
        if enough and _in_time(self._recent):
            self.in_time = True

    def _watch_gaps(self, gap_s: float, came_s: float) -> None:
        """Find out the same without timestamps: after a long gap the images come faster than before."""
        if self.in_time and len(self._periods) == _PERIODS:
            period_s = median(self._periods)
            if gap_s > max(_STALL_S, _STALL_PERIODS * period_s):
                # The camera may come back with another rate, so this cannot go on without end.
                self.in_time, self._backlog_until_s = False, came_s + _LONGEST_BACKLOG_S
                self._recent.clear()
                return
        if self.in_time:
            self._periods.append(gap_s)
            return
        self._recent.append((gap_s, median(self._periods)))
        self.in_time = came_s > self._backlog_until_s or (
            len(self._recent) == _BACKLOG_GAPS and _in_time(self._recent)
        )


def _in_time(gaps: Iterable[tuple[float, float]]) -> bool:
    """Return True if the gaps on the clock of this machine have the length that they have on the camera's."""
    gaps = list(gaps)
    return sum(here for here, _ in gaps) >= _IN_TIME * sum(there for _, there in gaps)
