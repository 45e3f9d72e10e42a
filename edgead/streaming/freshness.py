"""Whether a live source still shows the line: no verdict is ever given on an image that is not there.

A lost camera does not always say so. Drivers hand out the last image again and again, or a black or blue
one. So an image counts only when it is new: not the same as the one before to the last bit (a sensor's noise
makes every image differ), and not of one colour. Others are withheld from the model, and when no new one
came for a while the source has no signal, which every sink gets, as it gets the return.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgead.types import Frame, UInt8Array

# Compression leaves a few levels of noise on the uniform image of a lost signal.
BLANK_LEVELS = 3
# Images are compared on every 16th row and column first: where they differ there, the rest need not be
# read.
_STEP = 16


@dataclass(frozen=True, slots=True)
class Signal:
    """The source's signal has been lost or has returned.

    present: whether new images come. reason: why not, in words; empty where they do. silent_s: seconds
    since the last new image when it was lost; the length of the gap when it returned.
    """

    present: bool
    reason: str
    silent_s: float


class SignalWatch:
    """Scores the frames of a live source one after another. Times are seconds of one monotonic clock.

    no_signal_after_s: how long without a new image means no signal. now_s: the time of the start.
    """

    def __init__(self, no_signal_after_s: float, now_s: float) -> None:
        self._no_signal_after_s = no_signal_after_s
        self._last_new_s = now_s
        self._present = True
        self._previous: UInt8Array | None = None
        self._reason = "no image comes"

    def is_new(self, frame: Frame) -> bool:
        """Whether the frame shows something new, and may be scored."""
        previous, self._previous = self._previous, frame.image
        if is_blank(frame.image):
            self._reason = "the image is of one colour"
            return False
        if previous is not None and is_same(previous, frame.image):
            self._reason = "the image does not change"
            return False
        return True

    def change(self, new: bool, now_s: float) -> Signal | None:
        """Tell the time, and whether a new image has just come; returns what has changed, if anything."""
        silent_s = now_s - self._last_new_s
        if new:
            self._last_new_s = now_s
            self._reason = "no image comes"
            if not self._present:
                self._present = True
                return Signal(present=True, reason="", silent_s=silent_s)
        elif self._present and silent_s >= self._no_signal_after_s:
            self._present = False
            return Signal(present=False, reason=self._reason, silent_s=silent_s)
        return None


def is_same(first: UInt8Array, second: UInt8Array) -> bool:
    """Whether two images (H, W, 3) uint8 are equal to the last bit."""
    return (
        first.shape == second.shape
        and np.array_equal(first[::_STEP, ::_STEP], second[::_STEP, ::_STEP])
        and np.array_equal(first, second)
    )


def is_blank(image: UInt8Array) -> bool:
    """Whether an image (H, W, 3) uint8 is of one colour: each channel within `BLANK_LEVELS` levels."""
    return all(
        bool((np.ptp(pixels, axis=(0, 1)) <= BLANK_LEVELS).all())
        for pixels in (image[::_STEP, ::_STEP], image)
    )
