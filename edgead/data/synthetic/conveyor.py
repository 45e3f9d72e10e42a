"""A synthetic conveyor: the camera that every machine has.

It is an indexing conveyor, as inspection stations mostly are: the belt moves on by one part between two
frames and stands still while the camera looks, so each frame shows one part, near the centre, on a belt whose
ribs have moved on. That is what makes a model that was trained on single centred parts the right one for it.
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
from edgead.types import UInt8Array

# Sets a conveyor's parts apart from those of a dataset of the same seed, so that none of them was trained on.
_STREAM = 100

# HuffYUV loses nothing. The default Motion JPEG does: it lifts the score of every good part above a threshold
# that was set on images without it.
_CODECS = {".avi": "HFYU", ".mp4": "mp4v"}


@dataclass(frozen=True, slots=True)
class Conveyor:
    """An iterable of (image, is_defect): (size_px, size_px, 3) uint8 RGB, and whether the part is defective.

    Each frame is decided by `seed` and its number; every iteration starts from the first. defect_rate: the
    share of defective parts, 0 to 1. n_frames: None for an endless belt. Raises InputError for an unknown
    kind or a value out of range.
    """

    kind: str
    seed: int = 0
    size_px: int = 256
    defect_rate: float = 0.1
    n_frames: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"part kind {self.kind!r} is not known: give one of {', '.join(KINDS)}")
        if not 0.0 <= self.defect_rate <= 1.0:
            raise InputError(f"defect rate {self.defect_rate} is not from 0 to 1: give 0.1 for a tenth")
        if self.size_px < SIZE_MIN_PX:
            raise InputError(
                f"size {self.size_px} px is too small to draw a part: give {SIZE_MIN_PX} or more"
            )
        if self.seed < 0:
            raise InputError(f"seed {self.seed} is negative: give 0 or more")
        if self.n_frames is not None and self.n_frames < 1:
            raise InputError(
                f"{self.n_frames} frames on the conveyor: give 1 or more, or none for an endless belt"
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

    path: ends in .avi (HuffYUV, every pixel as it was drawn) or .mp4 (MPEG-4, smaller, with losses). The file
    appears whole or not at all. Raises InputError for another suffix or a value out of range, EdgeadError
    when it cannot be written.
    """
    path = Path(path)
    conveyor = Conveyor(kind, seed, size_px, defect_rate, n_frames)
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise InputError(f"video {path} does not end in .avi or .mp4: name it {path.with_suffix('.avi')}")
    if not fps > 0:
        raise InputError(f"{fps} frames a second: give more than 0")
    with replace_file(path) as partial:
        # OpenCV tells the container by the suffix, which a partial file does not have.
        named = partial.with_name(partial.name + path.suffix.lower())
        try:
            labels = _write_video(named, conveyor, codec, fps)
            os.replace(named, partial)
        finally:
            named.unlink(missing_ok=True)
    return labels


def _write_video(path: Path, conveyor: Conveyor, codec: str, fps: float) -> tuple[bool, ...]:
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*codec), fps, (conveyor.size_px, conveyor.size_px)
    )
    if not writer.isOpened():
        raise InputError(
            f"this OpenCV cannot write {codec} video: name the file .avi or install opencv-python"
        )
    labels: list[bool] = []
    try:
        for image, is_defect in conveyor:
            writer.write(np.ascontiguousarray(image[..., ::-1]))
            labels.append(is_defect)
    finally:
        writer.release()
    return tuple(labels)
