"""Number of cameras that one stream carries on this machine, from the times of the clock `e2e`."""

from __future__ import annotations

from dataclasses import dataclass

from edgead.benchmark.report import Clock

USED_SHARE = 0.8
"""Share of the time that the frames may take. The rest is for what the clock does not have: threads of several cameras,
sinks, other programs, and the one frame in a hundred that takes longer."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Cameras that a stream carries without a dropped frame, in the worst phases between them.

    Attributes:
        cameras: Number of cameras; 0 if even one gives its frames too fast.
        fps: Frames of each camera in a second.
        age_ms: Bound of the 99th percentile of the ages, in milliseconds.
    """

    cameras: int
    fps: float
    age_ms: float

    def text(self) -> str:
        """Return the capacity as a line."""
        rate = f"at {self.fps:g} frames a second"
        if not self.cameras:
            return f"carries    no camera {rate}: a frame takes too long"
        noun = "camera" if self.cameras == 1 else "cameras"
        return f"carries    {self.cameras} {noun} {rate}, ages below {self.age_ms:.1f} ms (p99, worst phases)"


def capacity_of(clock: Clock, fps: float) -> Capacity:
    """Compute how many cameras a stream carries that scores frames one after another.

    In the worst phases all cameras give a frame at one moment, and the last one waits for all others. Cameras of one
    rate keep their phases, so this may last. Each frame counts as the 99th percentile of the clock divided by
    `USED_SHARE`. N frames of one moment are then scored before the next ones come, and their sum bounds the age.

    Args:
        clock: Clock `e2e`: time from a frame in hand to its verdict.
        fps: Frames of each camera in a second.

    Returns:
        The capacity.

    Example:
        >>> from edgead.benchmark.report import Round
        >>> capacity_of(Clock.of([Round.of([8.0] * 100, 125.0)]), fps=15.0).cameras
        6
    """
    frame_ms = clock.p99_ms / USED_SHARE
    cameras = int(1e3 / fps / frame_ms)
    return Capacity(cameras, fps, cameras * frame_ms)
