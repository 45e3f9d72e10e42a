"""Detection of a lost signal: frames of a live source that show nothing new get no verdict.

Drivers do not always report a lost camera. Some return the last image again and again, others a black or blue image.
`FrameCheck` finds the frames whose score would say nothing about the part under the camera: an image that is too old,
of another size, of one colour, equal to the image before it in every bit, dark, overexposed, or of a frozen camera.
They are withheld from the model. `SignalWatch` finds that no frame has been good for a while, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from edgead.imaging.frame import region_of
from edgead.streaming.exposure import exposure
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.standstill import STILL_AFTER_S, StandstillWatch
from edgead.types import Frame, UInt8Array

# Compression adds a few levels of noise to the uniform image of a lost signal.
BLANK_LEVELS = 3
# Every 16th row and column is compared first: most images differ there, and the rest need not be read.
_STEP = 16

# Share of the largest age after which an image without movement and noise counts as too old.
_DOUBT = 0.8

Cause: TypeAlias = Literal[
    "no_image", "one_colour", "unchanged", "frozen", "standstill", "dark", "overexposed", "size", "late", "not_finite",
    "paused", "no_trigger", "next_part", "ended",
    "broken", "rate", "blurred", "rejects", "drift", "sink", "clock",
]  # fmt: skip
"""Cause of a missing verdict, of a lost signal, or of a degraded state, for programs."""

# They are only found after a while, or last until somebody sets the camera back, so they are reported at once.
_REPORTED_AT_ONCE = ("frozen", "standstill", "size")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a frame gets no verdict, or why verdicts are doubtful.

    Attributes:
        cause: The cause, for programs.
        reason: The reason, as text. It does not change while the problem stays the same.
        detail: Numbers of one frame, as the end of the text.
    """

    cause: Cause
    reason: str
    detail: str = ""

    @property
    def text(self) -> str:
        """The reason with its detail."""
        return f"{self.reason}{self.detail}"


class FrameCheck:
    """Checks the frames of a live source, one after another.

    Args:
        policy: Policy of the stream.
        max_age_s: Largest age of an image, in seconds.

    Attributes:
        is_still: Whether nothing moves in the last frames.
        max_age_s: Largest age of an image, in seconds.
    """

    def __init__(self, policy: StreamPolicy, max_age_s: float) -> None:
        self.is_still, self.max_age_s = False, max_age_s
        self._policy = policy
        self._standstill = StandstillWatch(_DOUBT * max_age_s)
        self._previous: UInt8Array | None = None
        self._size: tuple[int, ...] | None = None

    def late(self, frame: Frame, now_ns: int) -> Problem | None:
        """Return the problem of a frame that is older than the limit.

        Args:
            frame: Frame of the source.
            now_ns: Current time in nanoseconds, from `time.monotonic_ns`.
        """
        age_s = (now_ns - frame.captured_at_ns) / 1e9
        if age_s <= self.max_age_s:
            return None
        return Problem("late", f"the image is older than {self.max_age_s:g} s", f": {age_s:.1f} s")

    def problem(self, frame: Frame, now_ns: int) -> Problem | None:
        """Return the reason why a frame must not be scored, or None.

        Args:
            frame: Next frame of the source.
            now_ns: Current time in nanoseconds, from `time.monotonic_ns`.
        """
        image = frame.image
        if (late := self.late(frame, now_ns)) is not None:
            return late
        previous, self._previous = self._previous, image
        if is_blank(image):
            return Problem("one_colour", "the image is of one colour")
        if self._size is None:
            self._size = image.shape
        if image.shape != self._size:
            new, old = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, self._size))
            return Problem(
                "size", f"the image has {new} pixels and had {old}: set the camera back, or start anew"
            )
        if (still := self._still(image, now_ns / 1e9)) is not None:
            return still
        if previous is not None and is_same(previous, image):
            return Problem("unchanged", "the image does not change")
        darkest, brightest = exposure(region_of(image, self._policy.view))
        if brightest < self._policy.exposure.dark:
            level = f": its brightest hundredth has the level {brightest:.0f} of 255"
            return Problem("dark", "the image is dark", level)
        if darkest > self._policy.exposure.bright:
            level = f": its darkest hundredth has the level {darkest:.0f} of 255"
            return Problem("overexposed", "the image is overexposed", level)
        return None

    def _still(self, image: UInt8Array, now_s: float) -> Problem | None:
        """Return the problem of a camera that has frozen, and of a line that stands still if it counts as one."""
        state = self._standstill.state(image, now_s)
        self.is_still = state in ("still", "frozen")
        if state == "frozen" and self._policy.withhold_still != "never":
            return Problem(
                "frozen", f"the camera has frozen: no movement and no noise for {STILL_AFTER_S:g} s"
            )
        if state == "doubtful" and self._policy.withhold_still != "never":
            return Problem("unchanged", "the image shows no movement and no noise")
        if state == "still" and self._policy.withhold_still == "always":
            return Problem("standstill", f"the line stands still: no movement for {STILL_AFTER_S:g} s")
        return None


class SignalWatch:
    """Watches whether frames are good. Times are seconds of one monotonic clock.

    Args:
        no_signal_after_s: Time without a good frame, in seconds, after which the signal counts as lost.
        now_s: Start time in seconds.
        trouble_after_s: The same time for a source that knows a trouble.
        no_image: Reason for the loss if no frame comes.
    """

    def __init__(
        self,
        no_signal_after_s: float,
        now_s: float,
        *,
        trouble_after_s: float | None = None,
        no_image: str = "no image comes",
    ) -> None:
        self._no_signal_after_s, self._no_image = no_signal_after_s, no_image
        self._trouble_after_s = no_signal_after_s if trouble_after_s is None else trouble_after_s
        self._last_good_s = now_s
        self._latest: tuple[Problem, float] | None = None
        self._is_lost = False

    def silent_s(self, now_s: float) -> float:
        """Return the time since the last good frame, or since the start, in seconds."""
        return now_s - self._last_good_s

    def loss(
        self, problem: Problem | None, good: bool, now_s: float, trouble: str | None = None
    ) -> Problem | None:
        """Return the present reason why there is no signal; None if there is one.

        Args:
            problem: Problem of the frame that has just come, if it has one.
            good: Whether a frame without a problem has just come.
            now_s: Current time in seconds.
            trouble: Present reason why no frame comes, if the source knows one.
        """
        if good:
            self._last_good_s, self._latest, self._is_lost = now_s, None, False
            return None
        if problem is not None:
            self._latest = problem, now_s
        current = self._current(now_s, trouble)
        limit_s = self._no_signal_after_s if trouble is None else self._trouble_after_s
        if self.silent_s(now_s) >= limit_s or current.cause in _REPORTED_AT_ONCE:
            self._is_lost = True
        return current if self._is_lost else None

    def _current(self, now_s: float, trouble: str | None) -> Problem:
        """Return the present problem: the last frame's, unless frames have stopped coming."""
        if self._latest is not None and now_s - self._latest[1] < self._no_signal_after_s / 2:
            return self._latest[0]
        return Problem("no_image", self._no_image if trouble is None else f"{self._no_image}: {trouble}")


def is_same(first: UInt8Array, second: UInt8Array) -> bool:
    """Return True if two images, (H, W, 3) uint8, are equal bit for bit."""
    return (
        first.shape == second.shape
        and np.array_equal(first[::_STEP, ::_STEP], second[::_STEP, ::_STEP])
        and np.array_equal(first, second)
    )


def is_blank(image: UInt8Array) -> bool:
    """Return True if an image, (H, W, 3) uint8, has one colour: each channel spans at most `BLANK_LEVELS` levels."""
    for pixels in (image[::_STEP, ::_STEP], image):
        # In one row, because along two axes NumPy takes several times as long.
        row = pixels.reshape(-1, 3)
        if (row.max(axis=0) - row.min(axis=0) > BLANK_LEVELS).any():
            return False
    return True
