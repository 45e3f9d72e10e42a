"""The examination of one frame before it is scored: whether it shows something, and its pixels for the model."""

from __future__ import annotations

import logging
from typing import NamedTuple

from edgead.errors import ImageError, InputError
from edgead.imaging.frame import cut_image, squeeze_text
from edgead.imaging.frame import frame as apply_view
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.streaming.camera import Camera
from edgead.streaming.deliveries import Deliveries
from edgead.streaming.freshness import FrameCheck, Problem
from edgead.streaming.part_judge import PartJudge
from edgead.streaming.region import cut_region
from edgead.types import Frame, UInt8Array

_log = logging.getLogger(__name__)


class Examined(NamedTuple):
    """What the examination of a frame has found.

    Attributes:
        frame: The frame, cut to the region of its camera.
        problem: Reason why it must not be scored, or None.
        rows: Framing and pixels for the model, see `edgead.imaging.frame.cut_image`; None if no part waits for it now.
    """

    frame: Frame
    problem: Problem | None = None
    rows: tuple[Framing, UInt8Array] | None = None


class Examination:
    """Examination of the frames of one camera, one after another. Each call may come from another thread.

    Args:
        camera: Camera with its opened source.
        check: Check of its frames; None for a source that is not live.
        parts: Verdicts on the parts of its trigger; None without a trigger.
        size: Image size of the model.
    """

    def __init__(
        self, camera: Camera, check: FrameCheck | None, parts: PartJudge | None, size: ModelSize
    ) -> None:
        self._policy, self._survives = camera.policy, camera.survives
        self._check, self._parts, self._size = check, parts, size
        self._is_squeezed = False

    def __call__(self, frame: Frame, taken_ns: int) -> Examined:
        """Find the problem of a frame, or cut it for the model.

        Args:
            frame: Frame of the camera.
            taken_ns: Time at which it was taken, from `time.monotonic_ns`.

        Raises:
            ImageError: The region or the view does not fit an image of a file, which the stream does not survive.
        """
        view, region = self._policy.view, self._policy.region
        try:
            if region is not None:
                frame = cut_region(frame, region)
            framing = apply_view(view, *frame.image.shape[:2], self._size)
        except ImageError as error:
            if not self._survives:
                raise ImageError(f"{error.what} ({frame.source})", hint=error.hint) from error
            return Examined(frame, Problem("size", str(error)))
        if not self._is_squeezed and (line := squeeze_text(framing, frame.source)) is not None:
            self._is_squeezed = True
            _log.warning("%s", line)
        is_needed = self._parts is None or self._parts.expects(frame)
        # First, because it reads the image from beginning to end: the checks, which look here and there, then find it
        # in the cache.
        rows = cut_image(frame.image, view, self._size) if is_needed else None
        problem = None if self._check is None else self._check.problem(frame, taken_ns)
        return Examined(frame, problem, rows)


def frame_check(camera: Camera, outputs: Deliveries) -> FrameCheck | None:
    """Make the check of the frames of a live source; None for others, which have no trigger."""
    source, line, policy = camera.source, camera.line, camera.policy
    if source.live:
        max_age_s = policy.max_age_of(source.fps, 1 if line.parts is None else line.parts.rule.frames)
        if line.parts is None and not source.by_signal:
            outputs.valid_s = max_age_s
        return FrameCheck(policy, max_age_s)
    if line.parts is not None:
        raise InputError(f"{source.uri} is no camera", hint="a trigger needs one, so leave the trigger out")
    return None
