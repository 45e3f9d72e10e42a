"""Detection of a camera that has frozen in front of its encoder, and of a line that stands still.

A camera may send its last image again and again. A video encoder makes small changes to it, so the decoded images are
not equal. The noise of a sensor is missing, however. It shows in the quiet blocks of the image: in the tenth of the
blocks that change least from one image to the next. The median over time leaves out the key images of the encoder,
which change every block. The level of the noise is learnt while something moves, which proves that the camera lives.
If nothing has moved for `STILL_AFTER_S` seconds, the line stands still if the noise is there, and the camera has frozen
if it is not. Before, the images of a camera without noise are in doubt already.

An encoder with a low bit rate removes the noise. A line that stands still then looks like a frozen camera, and counts
as one: a verdict that is missing while the line stands costs less than a verdict on an image that is not there.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgead.streaming.quantile import quantile
from edgead.types import Float64Array, UInt8Array

STILL_AFTER_S = 2.5

State: TypeAlias = Literal["moving", "still", "doubtful", "frozen"]

# Mean change of a block, in levels, that only movement causes: more than the noise of an encoder's new key image.
_MOVES = 5.0
_MOVES_RATIO = 4.0
# Share of the learnt noise under which it is missing, and its limits in levels. Encoders leave most blocks of a frozen
# image as they are, and movement in all of the view makes the learnt noise too large.
_MISSING = 0.25
_LOWEST, _HIGHEST = 0.06, 0.3
_LEARNT_FROM = 101
_LEAST_CHANGES = 4
_SAMPLES = 256
_BLOCK = 16


class StandstillWatch:
    """Watches the images of a camera, one after another. Times are seconds of one monotonic clock.

    Args:
        doubt_after_s: Time without movement and noise, in seconds, after which an image is doubtful.
    """

    def __init__(self, doubt_after_s: float = STILL_AFTER_S) -> None:
        self._doubt_after_s = doubt_after_s
        self._previous: UInt8Array | None = None
        self._first: UInt8Array | None = None
        self._noise: deque[float] = deque(maxlen=_LEARNT_FROM)
        self._quiet: deque[tuple[float, float]] = deque()
        self._moved_s = 0.0

    def state(self, image: UInt8Array, now_s: float) -> State:
        """Return whether something moves, the line stands still, or the camera has frozen or may have.

        Args:
            image: Next image, (H, W, 3) uint8.
            now_s: Current time in seconds.
        """
        # Sampled, not averaged, because averages have less noise. Green has most of the light.
        step = max(1, round(min(image.shape[:2]) / _SAMPLES))
        sampled = np.ascontiguousarray(cv2.extractChannel(image[::step], 1)[:, ::step])
        previous, self._previous = self._previous, sampled
        if previous is None or self._first is None or previous.shape != sampled.shape:
            self._start(sampled, now_s)
            return "moving"
        changes = np.sort(block_changes(previous, sampled), axis=None)
        quiet = quantile(changes, 0.1)
        if _shows_movement(changes):
            self._noise.append(quiet)
            self._start(sampled, now_s)
            return "moving"
        # Slow movement shows over a longer time.
        if _shows_movement(np.sort(block_changes(self._first, sampled), axis=None)):
            self._start(sampled, now_s)
            return "moving"
        self._quiet.append((now_s, quiet))
        while len(self._quiet) > _LEAST_CHANGES and now_s - self._quiet[0][0] > STILL_AFTER_S:
            self._quiet.popleft()
        still_s = now_s - self._moved_s
        if still_s < min(self._doubt_after_s, STILL_AFTER_S) or len(self._quiet) < _LEAST_CHANGES:
            return "moving"
        learnt = median(self._noise) if self._noise else 0.0
        missing_below = min(max(_MISSING * learnt, _LOWEST), _HIGHEST)
        has_noise = median(change for _, change in self._quiet) >= missing_below
        if still_s < STILL_AFTER_S:
            return "moving" if has_noise else "doubtful"
        return "still" if has_noise else "frozen"

    def _start(self, sampled: UInt8Array, now_s: float) -> None:
        """Start anew with an image in which something has moved."""
        self._quiet.clear()
        self._first, self._moved_s = sampled, now_s


def _shows_movement(changes: Float64Array) -> bool:
    """Return True if a block changes more than by noise. The changes are in rising order."""
    return bool(changes[-1] > max(_MOVES, _MOVES_RATIO * quantile(changes, 0.5)))


def block_changes(first: UInt8Array, second: UInt8Array) -> Float64Array:
    """Compare two images block by block.

    Args:
        first: Grey image, (H, W) uint8.
        second: Grey image of the same shape and dtype.

    Returns:
        Mean absolute difference of each block in levels, (rows, columns) float64.
    """
    height, width = first.shape
    block = min(_BLOCK, height, width)
    rows, columns = height // block, width // block
    inside = slice(rows * block), slice(columns * block)
    changes = cv2.absdiff(first[inside], second[inside])
    sums = changes.reshape(rows, block, columns * block).sum(axis=1, dtype=np.uint32)
    means: Float64Array = sums.reshape(rows, columns, block).sum(axis=2) / float(block * block)
    return means
