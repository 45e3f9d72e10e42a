"""Choices of the user about a stream: when it ends, and which frames get no verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgead.errors import InputError
from edgead.streaming.exposure import ExposureLimits

WITHHOLD_STILL = ("frozen", "always", "never")
"""Frames of an image that stands still which get no verdict: those of a frozen camera, all, or none."""

LEAST_MAX_AGE_S = 1.0
_PERIODS = 3.0


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """Policy of a stream.

    Attributes:
        max_frames: Number of frames to judge, with a verdict or without, 1 or more; None for no limit.
        max_age_s: Largest age of an image at its verdict, in seconds, for live sources; None for the default of
            `max_age_of`.
        withhold_still: One of `WITHHOLD_STILL`.
        exposure: Limits of dark and overexposed images.
        sharpness: Sharpness below which an image is blurred; None if it is not known. See
            `edgead.streaming.sharpness`.

    Raises:
        InputError: A value is out of range.
    """

    max_frames: int | None = None
    max_age_s: float | None = None
    withhold_still: str = "frozen"
    exposure: ExposureLimits = field(default_factory=ExposureLimits)
    sharpness: float | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"max_frames is {self.max_frames}", hint="give 1 or more, or leave it out")
        if self.max_age_s is not None and not 0.0 < self.max_age_s < math.inf:
            raise InputError(f"max_age is {self.max_age_s}", hint="give a number of seconds above 0")
        if self.withhold_still not in WITHHOLD_STILL:
            hint = f"give one of {', '.join(WITHHOLD_STILL)}"
            raise InputError(f"withhold_still is {self.withhold_still!r}", hint=hint)

    def max_age_of(self, fps: float | None) -> float:
        """Return the largest age in seconds: by default 1 second, or three images of a slower camera.

        Args:
            fps: Frame rate of the source in frames per second, None if unknown.
        """
        if self.max_age_s is not None:
            return self.max_age_s
        return max(LEAST_MAX_AGE_S, _PERIODS / fps if fps else 0.0)
