"""A video file, every frame of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edgead.errors import SourceError
from edgead.streaming.sources.base import Source
from edgead.types import Frame, UInt8Array

_log = logging.getLogger(__name__)


class VideoFile(Source):
    """Every frame of a video file, in order, decoded by FFmpeg on the CPU.

    Raises SourceError when the file is not a video, at once or, where its header says more than is there,
    when not one frame can be decoded. A file cut short gives the frames it has, with a warning.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        # One decoding thread: the images are small, and the cores belong to the inference.
        self._video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._video.isOpened():
            raise SourceError(
                f"{path} is not a video that FFmpeg can read: give a video file or a folder of images"
            )
        fps = self._video.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else None

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        try:
            while not self._stopping.is_set():
                good, image = self._video.read()
                if not good:
                    self._check_length(index)
                    return
                rgb: UInt8Array = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                yield Frame(image=rgb, index=index, captured_at_ns=time.monotonic_ns(), source=self.uri)
                index += 1
        finally:
            # Here and not in `close`: whoever reads releases, for releasing under a read crashes the process.
            self._video.release()

    def _check_length(self, n_frames: int) -> None:
        if n_frames == 0:
            raise SourceError(
                f"{self.uri} holds no frame that can be decoded: copy it again from where it came from"
            )
        promised = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        if n_frames < promised:
            _log.warning(
                "%s ended after %d of %d frames: it is cut short or damaged", self.uri, n_frames, promised
            )
