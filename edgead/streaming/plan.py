"""What to stream: the cameras with their options, and what they share, before anything is opened.

The command line, `edgead.stream` and a file for `--config` give the same plan. All values are checked here, because an
error in an option must not show after the long start of a model.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from edgead.errors import InputError
from edgead.imaging.framing import Box
from edgead.scoring.threshold import check_value
from edgead.streaming.camera import FIRST_NAME
from edgead.streaming.page.address import PageAddress, read_page_address
from edgead.streaming.page.feedback import FeedbackAddress, read_feedback_address
from edgead.streaming.policy import PartRule, StreamPolicy
from edgead.streaming.region import read_region
from edgead.streaming.sinks import plan_sinks

MOST_CAMERAS = 32
# Names stand in records, in the address of the page and in file names.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """One camera: its source, its sinks and its options. The defaults are those of `edgead stream`.

    Attributes:
        source: Address of the source; see `edgead.streaming.open_source`.
        name: Name of the camera, for records, messages and the page.
        sink: Addresses of the sinks for the events of this camera.
        part: Name of the part; None for the only one of the model.
        threshold: Decision threshold; None for the model's.
        roi: Part of the camera's image that the stream sees, ``x,y,width,height`` in pixels; None for the whole image.
        watch: Whether to wait for new images in the source folder.
        wait: Time to wait for a source that is absent at the start, in seconds; infinity for no limit.
        max_frames: Number of judged frames after which the camera ends; None for no limit.
        max_age: Largest age of an image at its verdict, in seconds; None for the default of `StreamPolicy`.
        withhold_still: One of `edgead.streaming.policy.WITHHOLD_STILL`.
        trigger: Address of the trigger; None for a verdict on each frame.
        trigger_delay: Time from a trigger to the moment at which its part is in front of the camera, in seconds.
        part_frames: Number of frames of a part.
        part_rejects: Number of its frames that must be rejected to reject the part.

    Raises:
        InputError: A value is out of range.
    """

    source: str
    name: str = FIRST_NAME
    sink: tuple[str, ...] = ()
    part: str | None = None
    threshold: float | None = None
    roi: str | None = None
    watch: bool = False
    wait: float = 0.0
    max_frames: int | None = None
    max_age: float | None = None
    withhold_still: Literal["frozen", "always", "never"] = "frozen"
    trigger: str | None = None
    trigger_delay: float = 0.0
    part_frames: int = 1
    part_rejects: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"{self.name[:60]!r} is no name of a camera", hint="give up to 40 letters, digits, _, - and ."
            )
        if self.threshold is not None:
            check_value(self.threshold)
        if self.roi is not None:
            read_region(self.roi)
        if math.isnan(self.wait) or self.wait < 0.0:
            raise InputError(f"wait is {self.wait}", hint="give a number of seconds, 0 or more")
        StreamPolicy(None, self.max_frames, self.max_age, self.withhold_still)
        if self.rule != PartRule() and self.trigger is None:
            raise InputError(
                "trigger_delay, part_frames and part_rejects are for a trigger", hint="give a trigger, too"
            )

    @property
    def region(self) -> Box | None:
        """Part of the camera's image that the stream sees; None for the whole image."""
        return None if self.roi is None else read_region(self.roi)

    @property
    def rule(self) -> PartRule:
        """Rule of the verdicts on parts of a trigger."""
        return PartRule(self.trigger_delay, self.part_frames, self.part_rejects)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The cameras of one stream, and what they share.

    Attributes:
        cameras: Cameras with different names, 1 to `MOST_CAMERAS`.
        sink: Addresses of sinks of records for the events of all cameras.
        serve: Address of the page; None for no page.
        feedback: Address of the folder for images that viewers of the page mark; None for no such folder.

    Raises:
        InputError: Two cameras have one name, there are too many, or a value is not usable.
        SinkError: An address of a sink has an error, two sinks write to one place, or a sink cannot be shared.
        StreamError: A file that the address of the page names cannot be read.
    """

    cameras: tuple[CameraPlan, ...]
    sink: tuple[str, ...] = ()
    serve: str | None = None
    feedback: str | None = None

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        if not 1 <= len(names) <= MOST_CAMERAS:
            raise InputError(f"{len(names)} cameras", hint=f"give 1 to {MOST_CAMERAS}")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two cameras have the name {twice[0]}", hint="give each its own name")
        plan_sinks(self.sink, are_shared=True)
        # Together, because two sinks must not write to one place.
        plan_sinks([*self.sink, *(uri for camera in self.cameras for uri in camera.sink)])
        if self.feedback is not None and self.serve is None:
            raise InputError("feedback without a page", hint="give --serve 127.0.0.1:8000, too")

    @property
    def writes_to_standard_output(self) -> bool:
        """Whether verdicts go to standard output."""
        return any("jsonl:-" in sinks for sinks in (self.sink, *(camera.sink for camera in self.cameras)))

    def page_address(self) -> PageAddress | None:
        """Read the address of the page, and the files that it names."""
        return None if self.serve is None else read_page_address(self.serve)

    def feedback_address(self) -> FeedbackAddress | None:
        """Read the address of the folder for marked images."""
        return None if self.feedback is None else read_feedback_address(self.feedback)
