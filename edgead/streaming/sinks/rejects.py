"""Images of the rejected parts, to look at, to show, and to keep as test images.

Each rejected frame is saved without loss, and beside it the frame with heat map and verdict. Only the newest images are
kept, because a folder that grows for months fills the disk. An image that cannot be saved gets a record with the
reason.
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import suppress
from pathlib import Path

import cv2

from edgead.errors import EdgeadError, SinkError
from edgead.files.atomic import replace_file, write_errors
from edgead.files.records import utc_now
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks.base import Sink
from edgead.types import Float32Array, Frame, UInt8Array, Verdict

KEEP = 1000
_IMAGE, _HEAT = ".png", "_heat.jpg"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z_frame\d{8,}_score-?\d+\.\d{4}\.png")


class RejectFolder(Sink):
    """Images of rejected frames in a folder, named by time, frame and score: sorted by name is sorted by time.

    Files of other programs in the folder are never removed.

    Args:
        folder: Folder of the images; it is made if it is missing.
        keep: Number of images to keep, the images of earlier streams included; the oldest are removed.

    Raises:
        SinkError: The folder cannot be made or read.
    """

    logs_each_loss = True

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self._folder, self._keep = folder, keep
        if folder.exists() and not folder.is_dir():
            raise SinkError(f"cannot write to {folder} (it is a file)", hint="give rejects: a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Remove the files that a kill left behind: half an image, or a heat map without its image.
            for partial in folder.glob(".*Z_frame*.partial"):
                partial.unlink()
            for heat in folder.glob(f"*Z_frame*{_HEAT}"):
                image = heat.with_name(heat.name.removesuffix(_HEAT) + _IMAGE)
                if _NAME.fullmatch(image.name) and not image.exists():
                    heat.unlink()
            names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
        except OSError as error:
            raise SinkError(
                f"cannot write to {folder} ({error.strerror})", hint="check the path and its rights"
            ) from error
        self._stems = deque(name.removesuffix(_IMAGE) for name in names)

    def wants(self, verdict: Verdict) -> bool:
        """Return True for a rejected frame. See `Sink.wants`."""
        return verdict.is_anomalous

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Save the frame if it is rejected.

        Args:
            frame: Frame that was scored.
            verdict: Decision on the frame.
            anomaly_map: Anomaly map, (h, w) float32.

        Raises:
            EdgeadError: An image cannot be written.
        """
        if not self.wants(verdict):
            return
        # The basic format of ISO 8601, because some systems allow no colon in file names.
        time = utc_now("milliseconds").replace("-", "").replace(":", "").replace("+0000", "Z")
        stem = f"{time}_frame{verdict.frame_index:08d}_score{verdict.anomaly_score:.4f}"
        while len(self._stems) >= self._keep:
            for suffix in (_IMAGE, _HEAT):
                path = self._folder / f"{self._stems[0]}{suffix}"
                with write_errors(path):
                    path.unlink(missing_ok=True)
            self._stems.popleft()
        # The heat map is written first, so that every image has its heat map beside it; `keep` counts images.
        heat = self._folder / f"{stem}{_HEAT}"
        _save(heat, annotate(frame.image, verdict, anomaly_map))
        try:
            _save(self._folder / f"{stem}{_IMAGE}", frame.image)
        except EdgeadError:
            # What stopped the image, such as a share that is away, may also stop this.
            with suppress(OSError):
                heat.unlink()
            raise
        self._stems.append(stem)


def _save(path: Path, rgb: UInt8Array) -> None:
    """Write an RGB image; OpenCV chooses the format by the suffix."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with replace_file(path) as partial:
        partial.write_bytes(data.tobytes())
