"""The stream as a video: frames with heat map, box and verdict.

The containers allowed are those that a kill does not spoil: Matroska (.mkv, Motion JPEG) and WebM (.webm,
VP8, which browsers play). Whatever was written to the disk plays; FFmpeg keeps up to the last quarter of a
megabyte back, so a kill costs the last moments. An .mp4 would be lost as a whole, its index is written at the
end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2

from edgead.errors import SinkError
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks.base import Sink
from edgead.types import Float32Array, Frame, Verdict

VIDEO_FPS = 10.0
_CODECS = {".mkv": "MJPG", ".webm": "VP80"}
# OpenCV's writer does not say when the disk is full; so it is looked at in time.
_CHECK_EVERY = 16
_FREE_BYTES = 2**24


class AnnotatedVideo(Sink):
    """An annotated video; a file that is there is replaced when the first frame comes.

    fps: rate in frames a second at which it plays; a scored frame is a frame of the video. All frames get the
    size of the first. Raises SinkError for another suffix than .mkv and .webm, or a place that cannot be
    written.
    """

    def __init__(self, path: Path, fps: float = VIDEO_FPS) -> None:
        if path.suffix.lower() not in _CODECS:
            raise SinkError(
                f"{path} is not {' or '.join(_CODECS)}: other containers do not survive a power cut"
            )
        if not path.parent.is_dir():
            raise SinkError(f"cannot write {path}: {path.parent} is not a folder; make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SinkError(f"cannot write {path}: it is read-only; choose another path or change its rights")
        self._path, self._fps = path, fps
        self._video: cv2.VideoWriter | None = None
        self._width_height = (0, 0)
        self._count = 0

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Append the annotated frame."""
        if self._count % _CHECK_EVERY == 0 and shutil.disk_usage(self._path.parent).free < _FREE_BYTES:
            raise SinkError(f"disk full while writing {self._path}: free some space and run again")
        image = annotate(frame.image, verdict, anomaly_map)
        if self._video is None:
            self._width_height = (image.shape[1], image.shape[0])
            codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
            self._video = cv2.VideoWriter(
                str(self._path), cv2.CAP_FFMPEG, codec, self._fps, self._width_height
            )
            if not self._video.isOpened():
                raise SinkError(
                    f"cannot write {self._path}: check the path, its rights and the space on the disk"
                )
        if (image.shape[1], image.shape[0]) != self._width_height:
            # A camera that came back with another size; the writer would leave such frames out in silence.
            image = cv2.resize(image, self._width_height, interpolation=cv2.INTER_AREA)
        self._count += 1
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file; a stream without a verdict leaves none."""
        if self._video is not None:
            self._video.release()
            self._video = None
