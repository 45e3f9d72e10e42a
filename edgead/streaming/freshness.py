"""Detection of a lost signal: a live source that repeats its last image or shows one colour gets no verdict.

Drivers do not always report a lost camera. Some return the last image again and again, others a black or blue image.
Therefore an image counts as new only if it differs from the image before it in at least one bit (the noise of a sensor
makes every image differ) and does not have one uniform colour. Other images are withheld from the model. If no new
image comes for a while, the source has no signal. Every sink receives the loss of the signal and its return.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgead.types import Frame, UInt8Array

# Compression adds a few levels of noise to the uniform image of a lost signal.
BLANK_LEVELS = 3
# Every 16th row and column is compared first: most images differ there, and the rest need not be read.
_STEP = 16


@dataclass(frozen=True, slots=True)
class Signal:
    """A change of the signal: it was lost, or it has returned.

    Attributes:
        present: Whether new images come.
        reason: Reason for the loss, as text; empty if new images come.
        silent_s: Seconds since the last new image if the signal was lost, or the length of the gap if it returned.
    """

    present: bool
    reason: str
    silent_s: float


class SignalWatch:
    """Watches the frames of a live source, one after another. Times are seconds of one monotonic clock.

    Args:
        no_signal_after_s: Time without a new image, in seconds, after which the signal counts as lost.
        now_s: Start time in seconds.
    """

    def __init__(self, no_signal_after_s: float, now_s: float) -> None:
        self._no_signal_after_s = no_signal_after_s
        self._last_new_s = now_s
        self._present = True
        self._previous: UInt8Array | None = None
        self._reason = "no image comes"

    def is_new(self, frame: Frame) -> bool:
        """Return True if the frame is new and may be scored."""
        previous, self._previous = self._previous, frame.image
        if is_blank(frame.image):
            self._reason = "the image is of one colour"
            return False
        if previous is not None and is_same(previous, frame.image):
            self._reason = "the image does not change"
            return False
        return True

    def change(self, new: bool, now_s: float) -> Signal | None:
        """Update the state of the signal.

        Args:
            new: Whether a new image has just come.
            now_s: Current time in seconds.

        Returns:
            The change of the signal, or None if nothing changed.
        """
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
    """Return True if two images, (H, W, 3) uint8, are equal bit for bit."""
    return (
        first.shape == second.shape
        and np.array_equal(first[::_STEP, ::_STEP], second[::_STEP, ::_STEP])
        and np.array_equal(first, second)
    )


def is_blank(image: UInt8Array) -> bool:
    """Return True if an image, (H, W, 3) uint8, has one colour: each channel spans at most `BLANK_LEVELS` levels."""
    return all(
        bool((np.ptp(pixels, axis=(0, 1)) <= BLANK_LEVELS).all())
        for pixels in (image[::_STEP, ::_STEP], image)
    )
