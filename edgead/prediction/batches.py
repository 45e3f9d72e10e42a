"""The images of a prediction in batches, from any batch on.

A batch holds image files that follow one another, or frames of one video. Where batches begin depends on the list of
inputs only. So a run that continues scores the same batches as a run without an interrupt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from edgead.errors import EdgeadError, ImageError
from edgead.files.parsing import RecordError
from edgead.imaging.decode import read_image
from edgead.prediction.inputs import Input
from edgead.prediction.rows import Row
from edgead.runtime.framed import BATCH
from edgead.runtime.results import ReadImage
from edgead.streaming.sources.video import Video, open_video
from edgead.text import path_text
from edgead.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Item:
    """One image or frame.

    Attributes:
        path: Path of the image or the video.
        frame: Index of the frame of a video; None for an image, and for a video without frames.
        read: Function that reads the image.
    """

    path: Path
    frame: int | None
    read: ReadImage


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the sequence of images and frames.

    Attributes:
        index: Index of the input.
        frame: Index of the frame, if the input is a video.
    """

    index: int = 0
    frame: int = 0

    def is_start(self, inputs: Sequence[Input]) -> bool:
        """Return whether a batch starts here, or all inputs are done.

        Args:
            inputs: All inputs.
        """
        if self.index == len(inputs) or inputs[self.index].is_video:
            return self.frame % BATCH == 0
        return self.index % BATCH == 0 or inputs[self.index - 1].is_video

    def after(self, row: Row, inputs: Sequence[Input]) -> Position:
        """Return the position after a row.

        Args:
            row: Values of the row of this position.
            inputs: All inputs.

        Raises:
            RecordError: The row is of another image.
        """
        index, frame = self.index, self.frame
        if frame and row["image"] != path_text(inputs[index].path):
            index, frame = index + 1, 0  # the video has ended
        if index == len(inputs) or row["image"] != path_text(inputs[index].path):
            raise RecordError("the row is of another image")
        if row["frame"] is None:  # an image, or a video without frames
            return Position(index + 1)
        if row["frame"] != frame:
            raise RecordError("the row is of another frame")
        return Position(index, frame + 1)


def batches(inputs: Sequence[Input], start: Position, bit_depth: int | None) -> Iterator[list[Item]]:
    """Yield the images in batches.

    Args:
        inputs: All inputs.
        start: Position at which a batch starts.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Yields:
        The next 1 to `BATCH` images.
    """
    batch: list[Item] = []
    for index in range(start.index, len(inputs)):
        if batch and Position(index).is_start(inputs):
            yield batch
            batch = []
        file = inputs[index]
        if not file.is_video:
            batch.append(Item(file.path, None, partial(read_image, file.path, bit_depth)))
            continue
        if batch:
            yield batch
            batch = []
        yield from _video_batches(file.path, start.frame if index == start.index else 0)
    if batch:
        yield batch


def number_of_images(inputs: Sequence[Input]) -> int:
    """Count the images, and the frames that the containers of videos promise; for the progress only.

    Args:
        inputs: All inputs.
    """
    total = 0
    for file in inputs:
        total += 1
        if file.is_video:
            with suppress(EdgeadError), open_video(file.path) as video:
                total += max(0, video.promised - 1)
    return total


def _video_batches(path: Path, start: int) -> Iterator[list[Item]]:
    """Yield the frames of a video from one on. A video without frames gives one image that cannot be read."""
    try:
        with open_video(path) as video:
            items = islice(_frames(path, video), start, None)
            while batch := list(islice(items, BATCH)):
                yield batch
    except EdgeadError as error:
        yield [Item(path, None, partial(_fail, error))]


def _frames(path: Path, video: Video) -> Iterator[Item]:
    """Yield an item for each frame of a video, also for the broken ones, which the video leaves out."""
    index = n_frames = 0
    for frame in video:
        yield from _broken_frames(path, index, frame.index)
        yield Item(path, frame.index, partial(_same, frame.image))
        index, n_frames = frame.index + 1, n_frames + 1
    yield from _broken_frames(path, index, n_frames + video.broken)


def _broken_frames(path: Path, start: int, stop: int) -> Iterator[Item]:
    for index in range(start, stop):
        error = ImageError(f"frame {index} of {path} is broken", hint="copy the video again from its source")
        yield Item(path, index, partial(_fail, error))


def _same(image: UInt8Array) -> UInt8Array:
    return image


def _fail(error: EdgeadError) -> UInt8Array:
    raise error
