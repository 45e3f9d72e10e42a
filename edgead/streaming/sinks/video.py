"""A video of the annotated frames: heat map, boxes and verdict.

Only containers that survive a kill are allowed: Matroska (.mkv, Motion JPEG) and WebM (.webm, VP8, which browsers
play). The part of the file that is on the disk can be played. FFmpeg buffers up to a quarter of a megabyte, so a kill
loses the last moments. A kill would make a whole .mp4 unusable, because its index is written at the end.

FFmpeg keeps an index of the frames in memory until the file is finished, and a player has to load it. So a video of
months is cut into segments. The newest segment has the name of the file, the others have the time of their last frame
in their name.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

import cv2

from edgead.errors import SinkError
from edgead.files.atomic import write_errors
from edgead.files.ffmpeg import ffmpeg_name
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks.base import Sink
from edgead.types import Float32Array, Frame, Verdict

VIDEO_FPS = 10.0
SEGMENT_S = 3600.0
KEEP_SEGMENTS = 24
_CODECS = {".mkv": "MJPG", ".webm": "VP80"}
# OpenCV's writer does not report a full disk, so the free space is checked before it runs out.
_CHECK_EVERY = 16
_FREE_BYTES = 2**24


class AnnotatedVideo(Sink):
    """An annotated video with one frame for each verdict; all frames get the size of the first.

    Args:
        path: Video file to write, .mkv or .webm. When the first frame comes, an existing file is renamed as an older
            segment.
        fps: Frame rate of playback in frames per second.
        segment_s: Length of a segment in seconds of playback.
        keep: Number of older segments that stay; the oldest are removed.

    Raises:
        SinkError: The suffix is not supported, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        fps: float = VIDEO_FPS,
        *,
        segment_s: float = SEGMENT_S,
        keep: int = KEEP_SEGMENTS,
    ) -> None:
        if path.suffix.lower() not in _CODECS:
            raise SinkError(
                f"{path} is not {' or '.join(_CODECS)}",
                hint="give FILE.mkv or FILE.webm, because other containers do not survive a power cut",
            )
        if not path.parent.is_dir():
            raise SinkError(f"cannot write {path}", hint=f"make the folder {path.parent} first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise SinkError(
                f"cannot write {path} (it is read-only)", hint="choose another path or change its rights"
            )
        self._path, self._fps = path, fps
        self._segment_frames, self._keep = max(1, round(segment_s * fps)), keep
        self._video: cv2.VideoWriter | None = None
        self._width_height = (0, 0)
        self._count = 0

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Append the annotated frame. See `Sink.write`."""
        if self._count % _CHECK_EVERY == 0:
            with write_errors(self._path):
                free = shutil.disk_usage(self._path.parent).free
            if free < _FREE_BYTES:
                raise SinkError(f"disk full while writing {self._path}", hint="free some space and run again")
        if self._count == self._segment_frames:
            self.close()
        image = annotate(frame.image, verdict, anomaly_map)
        if self._video is None:
            self._video = self._begin((image.shape[1], image.shape[0]))
        if (image.shape[1], image.shape[0]) != self._width_height:
            # The camera came back with another size; the writer would drop such frames without an error.
            image = cv2.resize(image, self._width_height, interpolation=cv2.INTER_AREA)
        self._count += 1
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file; a stream without a verdict leaves no file."""
        if self._video is not None:
            self._video.release()
            self._video = None

    def _begin(self, width_height: tuple[int, int]) -> cv2.VideoWriter:
        """Begin a segment of a size in pixels; the file that has the name becomes an older segment."""
        self._shelve()
        self._width_height, self._count = width_height, 0
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        with ffmpeg_name(self._path) as name:
            video = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, self._fps, width_height)
        if not video.isOpened():
            raise SinkError(
                f"cannot write {self._path}", hint="check the path, its rights and the space on the disk"
            )
        return video

    def _shelve(self) -> None:
        """Rename an existing file by the time of its last frame, and remove the oldest of such files."""
        path = self._path
        with write_errors(path):
            if not path.is_file():
                return
            time = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
            stamp = f"{time:%Y%m%dT%H%M%S}.{time.microsecond // 1000:03d}Z"
            path.replace(path.with_name(f"{path.stem}_{stamp}{path.suffix}"))
            name = re.compile(rf"{re.escape(path.stem)}_\d{{8}}T\d{{6}}\.\d{{3}}Z{re.escape(path.suffix)}")
            older = sorted(file for file in path.parent.iterdir() if name.fullmatch(file.name))
            for file in older[: -self._keep]:
                file.unlink(missing_ok=True)
