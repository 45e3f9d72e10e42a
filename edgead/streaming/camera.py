"""One camera of a stream: its opened source, its sinks, and the rules of its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgead.streaming.line import LineControl
from edgead.streaming.policy import StreamPolicy
from edgead.streaming.sinks.base import Sink
from edgead.streaming.sources import Source

FIRST_NAME = "camera1"
"""Name of the only camera of a stream, unless it has another one."""


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a stream. A file or a folder counts as one, too.

    Attributes:
        source: Opened source of frames.
        sinks: Opened sinks for the events of this camera.
        threshold: Decision threshold; a frame with a higher score is rejected. `line` may set another one later.
        policy: Name of the part, number of frames, and which frames get no verdict.
        line: Control by the line: pauses, thresholds, and the parts of a trigger.
        name: Name of the camera, for records and messages.
    """

    source: Source
    sinks: Sequence[Sink]
    threshold: float
    policy: StreamPolicy = field(default_factory=StreamPolicy)
    line: LineControl = field(default_factory=LineControl)
    name: str = FIRST_NAME

    @property
    def waits(self) -> bool:
        """Whether the source waits until a frame is taken, as a file does."""
        return not self.source.live

    @property
    def survives(self) -> bool:
        """Whether the stream goes on if a sink fails: a camera cannot be streamed again."""
        return self.source.live or self.source.endless
