"""Parts that enter a zone of the image, as a light barrier would find them.

The empty view is learnt in the first second without movement in the zone, together with its noise. It follows slow
changes of the light while the zone is empty. A part is there if blocks of the zone differ from the empty view by more
than noise. The zone must be empty again before the next part can be found.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from edgead.streaming.line import LineControl
from edgead.streaming.standstill import block_changes
from edgead.streaming.triggers.base import Trigger, announce
from edgead.streaming.uri import read_options
from edgead.types import Float64Array, Frame, UInt8Array

# x, y, width and height, as shares of the image.
Zone = tuple[float, float, float, float]
ZONE: Zone = (0.4, 0.4, 0.2, 0.2)
LEARN_S = 1.0
_LEARN_FRAMES = 5
# A zone that is covered for so long shows another light, or was learnt with a part in it.
COVERED_S = 60.0
_FOLLOW_S = 3.0
# Least change of a block in levels, and in times of its noise; shares of the blocks at which a part comes and goes.
_LEAST_CHANGE, _TIMES_NOISE = 8.0, 4.0
_COMES, _GOES = 0.15, 0.05
_SAMPLES = 96
_LEARNS = "the trigger does not work: it learns the empty view"
_COVERED = f"the trigger does not work: its zone is not empty for {COVERED_S:g} s; empty it and start anew"


class MotionTrigger(Trigger):
    """A zone of the image.

    Args:
        zone: Zone of the image.
    """

    def __init__(self, zone: Zone = ZONE) -> None:
        self.name = "motion:"
        self._zone = zone
        self._restart()

    def start(self, line: LineControl) -> None:
        """Look at each frame. See `Trigger.start`."""
        line.trouble = _LEARNS
        line.on_frame = lambda frame: self._see(frame, line)

    def close(self) -> None:
        """Do nothing, because nothing is open."""

    def _restart(self) -> None:
        """Learn the empty view anew."""
        self._empty: Float64Array | None = None
        self._learnt: list[UInt8Array] = []
        self._limits: Float64Array = np.zeros(0)
        self._since_ns = self._previous_ns = 0
        self._is_there = False

    def _see(self, frame: Frame, line: LineControl) -> None:
        """Announce the part that a frame shows for the first time."""
        zone, now_ns = self._sampled(frame.image), frame.captured_at_ns
        if line.is_paused or (self._empty is not None and self._empty.shape != zone.shape):
            self._restart()
            line.trouble = _LEARNS
        if self._empty is None:
            self._learn(zone, now_ns, line)
            return
        covered = float((_changes(self._empty, zone) > self._limits).mean())
        passed_s, self._previous_ns = (now_ns - self._previous_ns) / 1e9, now_ns
        if not self._is_there and covered >= _COMES:
            self._is_there, self._since_ns = True, now_ns
            announce(line, b"", now_ns)
        elif covered < _GOES:
            self._is_there, line.trouble = False, None
            self._empty += (zone - self._empty) * min(1.0, passed_s / _FOLLOW_S)
        elif self._is_there and now_ns - self._since_ns > COVERED_S * 1e9:
            line.trouble = _COVERED

    def _learn(self, zone: UInt8Array, now_ns: int, line: LineControl) -> None:
        """Add an image to the empty view; begin anew after a second in which something has moved."""
        if not self._learnt or self._learnt[0].shape != zone.shape:
            self._learnt, self._since_ns = [], now_ns
        self._learnt.append(zone)
        if now_ns - self._since_ns < LEARN_S * 1e9 or len(self._learnt) < _LEARN_FRAMES:
            return
        learnt, self._learnt = self._learnt, []
        empty: Float64Array = np.median(learnt, axis=0)
        noise = [block_changes(first, second) for first, second in pairwise(learnt)]
        limits = _limits(np.median(noise, axis=0))
        if not any((_changes(empty, each) > limits).any() for each in learnt):
            self._empty, self._limits, self._previous_ns, line.trouble = empty, limits, now_ns, None

    def _sampled(self, image: UInt8Array) -> UInt8Array:
        """Return the zone of an image, (H, W, 3) uint8, sampled as a small grey image."""
        height, width = image.shape[:2]
        x, y, zone_width, zone_height = self._zone
        left, top = int(x * width), int(y * height)
        right = max(left + 1, round((x + zone_width) * width))
        bottom = max(top + 1, round((y + zone_height) * height))
        step = max(1, min(right - left, bottom - top) // _SAMPLES)
        sampled: UInt8Array = image[top:bottom:step, left:right:step, 1].copy()
        return sampled


def _changes(empty: Float64Array, zone: UInt8Array) -> Float64Array:
    """Return the change of each block of the zone from the empty view, in levels."""
    return block_changes(np.rint(empty).astype(np.uint8), zone)


def _limits(noise: Float64Array) -> Float64Array:
    """Return the changes of blocks in levels that are more than their noise in levels."""
    return np.maximum(_LEAST_CHANGE, _TIMES_NOISE * noise)


def open_motion(target: str) -> MotionTrigger:
    """Open the trigger of an address without its kind: nothing, or ``?zone=X,Y,WIDTH,HEIGHT`` in shares of the image.

    Raises:
        InputError: An option is unknown or has an invalid value.
    """
    if not target:
        return MotionTrigger()
    known: dict[str, Callable[[str], Zone]] = {"zone": _zone}
    return MotionTrigger(read_options(target.removeprefix("?"), known)["zone"])


def _zone(text: str) -> Zone:
    """Read a zone."""
    wanted = "give X,Y,WIDTH,HEIGHT of a zone inside the image, as shares such as 0.4,0.4,0.2,0.2"
    try:
        x, y, width, height = (float(one) for one in text.split(","))
    except ValueError:
        raise ValueError(wanted) from None
    inside = min(x, y) >= 0.0 and min(width, height) > 0.0 and x + width <= 1.0 and y + height <= 1.0
    if not inside:
        raise ValueError(wanted)
    return x, y, width, height
