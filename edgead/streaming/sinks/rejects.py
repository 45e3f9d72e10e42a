"""Images of the rejected parts, to look at, to show, and to keep as test images.

Each rejected frame is saved without loss, and beside it the frame with heat map and verdict. Only the newest images are
kept, by number, by size or both, because a folder that grows for months fills the disk. An image that cannot be saved
gets a record with the reason.
"""

from __future__ import annotations

import math
import re
from collections import deque
from contextlib import suppress
from pathlib import Path

import cv2

from edgead.errors import EdgeadError, SinkError
from edgead.files.atomic import beside, place_file, write_errors
from edgead.files.records import utc_now
from edgead.streaming.annotate import annotate
from edgead.streaming.sinks.base import Sink
from edgead.types import Float32Array, Frame, UInt8Array, Verdict

KEEP = 1000
_IMAGE, _HEAT = ".png", "_heat.jpg"
_STEM = r"\d{8}T\d{6}\.\d{3}Z_frame\d{8,}_score-?\d+\.\d{4}"
_NAME = re.compile(rf"({_STEM})\.png")
# Files that a kill left behind: half an image, or a heat map without its image.
_PARTIAL = re.compile(rf"\.{_STEM}(\.png|_heat\.jpg)(\.\d+-\d+)?\.partial")
_HEAT_NAME = re.compile(rf"({_STEM})_heat\.jpg")


class RejectFolder(Sink):
    """Images of rejected frames in a folder, named by time, frame and score: sorted by name is sorted by time.

    Files of other programs in the folder are never removed.

    Args:
        folder: Folder of the images; it is made if it is missing.
        keep: Number of images to keep, the images of earlier streams included; the oldest are removed. None for no
            limit.
        max_bytes: Largest size of all images and heat maps together, those of earlier streams included. None for no
            limit.

    Raises:
        SinkError: The folder cannot be made or read.
    """

    logs_each_loss = True

    def __init__(self, folder: Path, keep: int | None = KEEP, max_bytes: int | None = None) -> None:
        self._folder, self._keep, self._max_bytes = folder, keep, max_bytes
        # Stem and size of each image with its heat map, oldest first.
        self._kept: deque[tuple[str, int]] = deque()
        self._n_bytes = 0
        if folder.exists() and not folder.is_dir():
            raise SinkError(f"cannot write to {folder} (it is a file)", hint="give rejects: a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._find()
            self._make_room(0, 0)
        except OSError as error:
            raise SinkError(
                f"cannot write to {folder} ({error.strerror})", hint="check the path and its rights"
            ) from error

    def _find(self) -> None:
        """Find the images of earlier streams, and remove what a kill left behind."""
        names = {path.name for path in self._folder.iterdir()}
        for name in names:
            heat = _HEAT_NAME.fullmatch(name)
            if _PARTIAL.fullmatch(name) or (heat is not None and f"{heat[1]}{_IMAGE}" not in names):
                (self._folder / name).unlink()
        for stem in sorted(found[1] for name in names if (found := _NAME.fullmatch(name)) is not None):
            files = [f"{stem}{suffix}" for suffix in (_IMAGE, _HEAT)]
            size = sum((self._folder / file).stat().st_size for file in files if file in names)
            self._add(stem, size)

    def _add(self, stem: str, n_bytes: int) -> None:
        self._kept.append((stem, n_bytes))
        self._n_bytes += n_bytes

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
            EdgeadError: An image cannot be written, or is larger than all that may stay.
        """
        if not self.wants(verdict):
            return
        # The basic format of ISO 8601, because some systems allow no colon in file names.
        time = utc_now("milliseconds").replace("-", "").replace(":", "").replace("+0000", "Z")
        stem = f"{time}_frame{verdict.frame_index:08d}_score{verdict.anomaly_score:.4f}"
        heat, image = (self._folder / f"{stem}{suffix}" for suffix in (_HEAT, _IMAGE))
        heat_data = _encoded(heat, annotate(frame.image, verdict, anomaly_map))
        image_data = _encoded(image, frame.image)
        n_bytes = len(heat_data) + len(image_data)
        if self._max_bytes is not None and n_bytes > self._max_bytes:
            raise SinkError(
                f"an image for {self._folder} has {n_bytes / 1e6:.3g} MB, more than max_mb",
                hint="raise max_mb",
            )
        # Before the write, so that the folder is never larger than it may be.
        self._make_room(1, n_bytes)
        # The heat map is written first, so that every image has its heat map beside it; `keep` counts images.
        _save(heat, heat_data)
        try:
            _save(image, image_data)
        except EdgeadError:
            # What stopped the image, such as a share that is away, may also stop this.
            with suppress(OSError):
                heat.unlink()
            raise
        self._add(stem, n_bytes)

    def _make_room(self, n_images: int, n_bytes: int) -> None:
        """Remove the oldest images until some more images of some bytes may follow."""
        most = math.inf if self._keep is None else self._keep
        most_bytes = math.inf if self._max_bytes is None else self._max_bytes
        while self._kept and (len(self._kept) + n_images > most or self._n_bytes + n_bytes > most_bytes):
            stem, size = self._kept[0]
            for suffix in (_IMAGE, _HEAT):
                path = self._folder / f"{stem}{suffix}"
                with write_errors(path):
                    path.unlink(missing_ok=True)
            self._kept.popleft()
            self._n_bytes -= size


def _encoded(path: Path, rgb: UInt8Array) -> bytes:
    """Encode an RGB image; OpenCV chooses the format by the suffix."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _save(path: Path, data: bytes) -> None:
    # The time of `replace_file` would grow with the number of images, because it looks for what a kill left behind.
    place_file(path, data, beside(path, "partial"))
