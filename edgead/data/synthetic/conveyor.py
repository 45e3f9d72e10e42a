"""A synthetic conveyor: a source of frames that needs no camera.

It is an indexing conveyor, as most inspection stations have. The belt moves by one part between two frames and stands
still during the exposure. Each frame therefore shows one part, near the centre, and the ribs of the belt have moved. A
model that was trained on single centred parts fits these frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from edgead.data.synthetic.defects import DEFECTS, add_defect
from edgead.data.synthetic.parts import KINDS, SIZE_MIN_PX, render_part
from edgead.errors import InputError
from edgead.files.atomic import replace_file
from edgead.files.ffmpeg import ffmpeg_name
from edgead.types import UInt8Array

# With this number, the parts of a conveyor differ from the parts of a dataset of the same seed, so that no part on the
# conveyor was trained on.
_STREAM = 100

# HuffYUV is lossless. Motion JPEG, the default, is not: its artefacts lift the score of every good part above a
# threshold from images without them.
_CODECS = {".avi": "HFYU", ".mp4": "mp4v"}


@dataclass(frozen=True, slots=True)
class Conveyor:
    """An iterable of frames: pairs (image, is_defect), where the image is (size_px, size_px, 3) uint8 RGB.

    `seed` and the number of a frame determine the frame. Every iteration starts from the first frame.

    Attributes:
        kind: Kind of part, one of `edgead.data.synthetic.parts.KINDS`.
        seed: Seed of the parts and defects, 0 or more.
        size_px: Height and width of the frames, in pixels, at least 64.
        defect_rate: Share of defective parts, 0 to 1.
        n_frames: Number of frames; None for an endless belt.

    Raises:
        InputError: The kind is unknown, or a value is out of range.
    """

    kind: str
    seed: int = 0
    size_px: int = 256
    defect_rate: float = 0.1
    n_frames: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"part kind {self.kind!r} is unknown", hint=f"give one of {', '.join(KINDS)}")
        if not 0.0 <= self.defect_rate <= 1.0:
            raise InputError(
                f"defect rate {self.defect_rate} is not from 0 to 1", hint="give 0.1 for a tenth"
            )
        if self.size_px < SIZE_MIN_PX:
            raise InputError(
                f"size {self.size_px} px is too small to draw a part", hint=f"give {SIZE_MIN_PX} or more"
            )
        if self.seed < 0:
            raise InputError(f"seed {self.seed} is negative", hint="give 0 or more")
        if self.n_frames is not None and self.n_frames < 1:
            raise InputError(
                f"{self.n_frames} frames on the conveyor", hint="give 1 or more, or None for an endless belt"
            )

    def __iter__(self) -> Iterator[tuple[UInt8Array, bool]]:
        return (self._frame(index) for index in (count() if self.n_frames is None else range(self.n_frames)))

    def _frame(self, index: int) -> tuple[UInt8Array, bool]:
        rng = np.random.default_rng([self.seed, _STREAM, index])
        is_defect = bool(rng.random() < self.defect_rate)
        part = render_part(self.kind, rng, self.size_px)
        if not is_defect:
            return part.image, False
        image, _ = add_defect(part.image, DEFECTS[rng.integers(len(DEFECTS))], rng, part.outline)
        return image, True


def write_conveyor_video(
    path: Path,
    kind: str,
    n_frames: int,
    seed: int = 0,
    size_px: int = 256,
    defect_rate: float = 0.1,
    fps: float = 5.0,
) -> tuple[bool, ...]:
    """Write a video of a conveyor and return, for each of its frames, whether the part is defective.

    The file appears complete or not at all.

    Args:
        path: Video file to write. Its suffix is .avi (HuffYUV, lossless) or .mp4 (MPEG-4, smaller, lossy).
        kind: Kind of part, one of `edgead.data.synthetic.parts.KINDS`.
        n_frames: Number of frames, at least 1.
        seed: Seed of the parts and defects, 0 or more.
        size_px: Height and width of the frames, in pixels, at least 64.
        defect_rate: Share of defective parts, 0 to 1.
        fps: Frame rate of the video, in frames per second.

    Returns:
        One value for each frame: True if its part is defective.

    Raises:
        InputError: The suffix or the kind is unknown, a value is out of range, or OpenCV lacks the codec.
        EdgeadError: The file cannot be written.
    """
    path = Path(path)
    conveyor = Conveyor(kind, seed, size_px, defect_rate, n_frames)
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise InputError(
            f"video {path} does not end in .avi or .mp4", hint=f"name it {path.with_suffix('.avi')}"
        )
    if not fps > 0:
        raise InputError(f"frame rate {fps} is not above 0", hint="give a frame rate such as 5")
    with replace_file(path) as partial:
        # OpenCV chooses the container by the suffix, and a partial file does not have that suffix.
        named = partial.with_name(partial.name + path.suffix.lower())
        try:
            labels = _write_video(named, conveyor, codec, fps)
            os.replace(named, partial)
        finally:
            named.unlink(missing_ok=True)
    return labels


def _write_video(path: Path, conveyor: Conveyor, codec: str, fps: float) -> tuple[bool, ...]:
    size = (conveyor.size_px, conveyor.size_px)
    with ffmpeg_name(path) as name:
        writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    if not writer.isOpened():
        raise InputError(
            f"this OpenCV cannot write {codec} video", hint="name the file .avi or install opencv-python"
        )
    labels: list[bool] = []
    try:
        for image, is_defect in conveyor:
            writer.write(np.ascontiguousarray(image[..., ::-1]))
            labels.append(is_defect)
    finally:
        writer.release()
    return tuple(labels)
