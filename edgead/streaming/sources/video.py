"""Video files as sources."""

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

    A truncated file gives the frames that it has, and a warning is logged.

    Args:
        path: Video file.

    Raises:
        SourceError: FFmpeg cannot open the file. The iteration raises it if no frame can be decoded.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        # One decoding thread is enough for small images, and the inference needs the cores.
        self._video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._video.isOpened():
            raise SourceError(
                f"{path} is not a video that FFmpeg can read", hint="give a video file or a folder of images"
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
            # Not in `close`: the reading thread releases, because a release during a read crashes the process.
            self._video.release()

    def _check_length(self, n_frames: int) -> None:
        """Compare the number of decoded frames with the header: raise SourceError for 0, warn if frames are missing."""
        if n_frames == 0:
            raise SourceError(
                f"{self.uri} holds no frame that can be decoded", hint="copy it again from its origin"
            )
        promised = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        if n_frames < promised:
            _log.warning(
                "%s ended after %d of %d frames: it is truncated or damaged", self.uri, n_frames, promised
            )
