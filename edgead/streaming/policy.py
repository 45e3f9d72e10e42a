"""Choices of the user about a stream: when it ends, which frames get no verdict, and how a part gets its verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgead.errors import InputError
from edgead.imaging.framing import Box
from edgead.imaging.view import WHOLE, View
from edgead.streaming.exposure import ExposureLimits

if TYPE_CHECKING:
    from edgead.streaming.drift import DriftWatch

WITHHOLD_STILL = ("frozen", "always", "never")
"""Frames of an image that stands still which get no verdict: those of a frozen camera, all, or none."""

LEAST_MAX_AGE_S = 1.0
_PERIODS = 3.0


# Images of one part that wait for its verdict are in memory.
MOST_PART_FRAMES = 32
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class PartRule:
    """Rule of the verdict on a part that a trigger announces.

    Attributes:
        delay_s: Time from the trigger to the moment at which the part is in front of the camera, in seconds.
        frames: Number of frames of a part, 1 to `MOST_PART_FRAMES`.
        rejects: Number of its frames, 1 to `frames`, that must be rejected to reject the part.

    Raises:
        InputError: A value is out of range.
    """

    delay_s: float = 0.0
    frames: int = 1
    rejects: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.delay_s <= LONGEST_DELAY_S:
            hint = f"give 0 to {LONGEST_DELAY_S:g} seconds"
            raise InputError(f"trigger_delay is {self.delay_s}", hint=hint)
        if not 1 <= self.frames <= MOST_PART_FRAMES:
            raise InputError(f"part_frames is {self.frames}", hint=f"give 1 to {MOST_PART_FRAMES}")
        if not 1 <= self.rejects <= self.frames:
            hint = f"give 1 to {self.frames}, the number of frames of a part"
            raise InputError(f"part_rejects is {self.rejects}", hint=hint)


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """Policy of a stream.

    Attributes:
        part: Name of the part that the threshold belongs to, for the verdicts.
        max_frames: Number of frames to judge, with a verdict or without, 1 or more; None for no limit.
        max_age_s: Largest age of an image at its verdict, in seconds, for live sources; None for the default of
            `max_age_of`. With a trigger it is also the largest time from a part in front of the camera to its verdict.
        withhold_still: One of `WITHHOLD_STILL`.
        exposure: Limits of dark and overexposed images.
        drift: Watch of scores and images against those of the build, for one stream; None without the build's values.
        sharpness: Sharpness below which an image is blurred; None if it is not known. See
            `edgead.imaging.sharpness`.
        view: Part of an image that the model inspects, and the way to its size.
        region: Part of the camera's image that the stream sees; None for the whole image.

    Raises:
        InputError: A value is out of range.
    """

    part: str | None = None
    max_frames: int | None = None
    max_age_s: float | None = None
    withhold_still: str = "frozen"
    exposure: ExposureLimits = field(default_factory=ExposureLimits)
    sharpness: float | None = None
    drift: DriftWatch | None = None
    view: View = WHOLE
    region: Box | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"max_frames is {self.max_frames}", hint="give 1 or more, or leave it out")
        if self.max_age_s is not None and not 0.0 < self.max_age_s < math.inf:
            raise InputError(f"max_age is {self.max_age_s}", hint="give a number of seconds above 0")
        if self.withhold_still not in WITHHOLD_STILL:
            hint = f"give one of {', '.join(WITHHOLD_STILL)}"
            raise InputError(f"withhold_still is {self.withhold_still!r}", hint=hint)

    def max_age_of(self, fps: float | None, part_frames: int = 1) -> float:
        """Return the largest age in seconds: by default 1 second, or three images of a slower camera.

        Args:
            fps: Frame rate of the source in frames per second, None if unknown.
            part_frames: Number of frames of a part; each one after the first adds an image to the default.
        """
        if self.max_age_s is not None:
            return self.max_age_s
        return max(LEAST_MAX_AGE_S, (_PERIODS + part_frames - 1) / fps if fps else 0.0)
