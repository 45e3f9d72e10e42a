"""Videos as sources, in files and behind web addresses."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2

from edgead.errors import ImageError, SourceError
from edgead.files.ffmpeg import ffmpeg_name
from edgead.streaming.sources.base import Source
from edgead.streaming.sources.ffmpeg import VideoDevice, open_ffmpeg
from edgead.types import Frame, UInt8Array

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")

_log = logging.getLogger(__name__)


class Video(Source):
    """Every frame of a video, in order, decoded by FFmpeg on the CPU.

    A truncated video gives the frames that it has, and a warning is logged. A broken image of Motion JPEG is left out
    together with its index, and counted. The first of several is logged.

    Args:
        uri: Path or address of the video.
        video: Opened video. The iteration releases it.
        must_be_whole: Function that returns whether fewer frames than promised show a damage. FFmpeg computes the
            number of frames from the duration if the container has none, and the sound may last longer than the images.

    Attributes:
        promised: Number of frames that the container promises; 0 if it promises none.

    Raises:
        SourceError: By the iteration, if no frame can be decoded.
    """

    def __init__(self, uri: str, video: VideoDevice, must_be_whole: Callable[[], bool]) -> None:
        super().__init__(uri)
        self._video, self._must_be_whole = video, must_be_whole
        fps = video.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None
        promised = video.get(cv2.CAP_PROP_FRAME_COUNT)
        # FFmpeg gives a huge negative number for a stream without an end.
        self.promised = int(promised) if 0 < promised < 2**53 else 0

    def __iter__(self) -> Iterator[Frame]:
        index, was_whole = 0, True
        try:
            while not self._stopping.is_set():
                try:
                    good, image = self._video.read()
                except ImageError as error:
                    if was_whole:
                        _log.warning("%s: left out: %s", self.uri, error)
                    was_whole = False
                    self.broken += 1
                    index += 1
                    continue
                if not good or image is None:
                    self._check_length(index - self.broken)
                    return
                was_whole = True
                rgb: UInt8Array = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(image=rgb, index=index, captured_at_ns=time.monotonic_ns(), source=self.uri)
                index += 1
        finally:
            # Not in `close`: the reading thread releases, because a release during a read crashes the process.
            self._video.release()

    def _check_length(self, n_frames: int) -> None:
        """Raise SourceError if there is no frame, and warn if there are fewer than the container promises."""
        if n_frames == 0:
            raise SourceError(
                f"{self.uri} holds no frame that can be decoded", hint="copy it again from its origin"
            )
        if n_frames + self.broken < self.promised and self._must_be_whole():
            _log.warning(
                "%s ended after %d of %d frames: it is truncated or damaged",
                self.uri,
                n_frames,
                self.promised,
            )


def open_video(path: Path) -> Video:
    """Open a video file.

    Args:
        path: Video file.

    Returns:
        The opened video.

    Raises:
        SourceError: FFmpeg cannot open the file.
    """
    with ffmpeg_name(path) as name:
        video = open_ffmpeg(name, str(path))
    if not video.isOpened():
        raise SourceError(
            f"{path} is not a video that FFmpeg can read", hint="give a video file or a folder of images"
        )
    return Video(str(path), video, lambda: _must_be_whole(path))


def counts_frames(head: bytes) -> bool:
    """Return True if a container with these first 12 bytes has the exact number of its frames: AVI."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _must_be_whole(path: Path) -> bool:
    """Return True if a file counts its frames, or certainly ends too early.

    MP4 counts the stored frames, of which an edit list may show only some. So its boxes are followed to the end.
    """
    with open(path, "rb") as file:
        head, size = file.read(12), os.fstat(file.fileno()).st_size
        if head[4:8] not in _MP4_BOXES:
            return counts_frames(head)
        place = 0
        while place + 16 <= size:
            file.seek(place)
            length, _, long = struct.unpack(">I4sQ", file.read(16))
            if length == 1:
                length = long
            if length < 8:  # 0 means up to the end of the file
                return False
            place += length
    return place != size
