"""Images for the page: the newest verdict, often while somebody looks, and the last rejects.

The loop hands over references, at a bounded rate. The images are reduced in the thread of the sink, and drawn and
encoded when a viewer asks for them, once for all viewers. If viewers may mark images, the last ones are also kept as
they came from the camera, as many as fit into `MOST_ORIGINAL_BYTES`
of all cameras.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import cv2

from edgead.files.records import utc_now
from edgead.imaging.heatmap import overlay
from edgead.streaming.page.feedback import Label
from edgead.streaming.sinks.base import Sink
from edgead.types import Float32Array, Frame, UInt8Array, Verdict

KEPT_REJECTS = 12
# Images that viewers have opened, and the newest ones, from which a viewer chooses.
KEPT_OPENED, KEPT_RECENT = 4, 12
MOST_ORIGINAL_BYTES = 64 * 2**20
# Longer side of an image for a viewer.
MOST_PX = 800
# Shortest times between two images that the loop hands over.
LIVE_EVERY_S = 0.15
REJECT_EVERY_S = 0.25
# The same while nobody looks, so that a page that is opened shows an image at once, also of a camera that stands still.
UNWATCHED_EVERY_S = 1.0
# Time after the last request for an image for which somebody counts as watching.
_WATCHED_S = 5.0
# Images that wait until the sinks of records have their verdicts. More would be old when a viewer sees them.
_MOST_WAITING = 2
_QUALITY = 85


class Snapshot:
    """The image of one verdict.

    Args:
        number: Number of the image: 1, 2, 3, ... in its page.
        frame: Frame; its image is reduced.
        verdict: Decision on the frame.
        anomaly_map: Anomaly map, (h, w) float32.

    Attributes:
        original: Image as it came from the camera; None if it is not kept.
        source: Address of the source.
        time: Time at which the image came here, UTC in ISO 8601.
        label: What a viewer has marked it as; None if nobody has.
    """

    def __init__(self, number: int, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        self.number, self.verdict, self.source = number, verdict, frame.source
        self.original: UInt8Array | None = frame.image
        self.time = utc_now("milliseconds")
        self.label: Label | None = None
        self._captured_at_s = frame.captured_at_ns / 1e9
        self._image, self._map = _reduced(frame.image), anomaly_map
        self._jpeg: bytes | None = None
        self._encoding = threading.Lock()

    @property
    def age_s(self) -> float:
        """Time since the capture of the image, in seconds."""
        return max(0.0, time.monotonic() - self._captured_at_s)

    def jpeg(self) -> bytes:
        """Return the image with its heat map as a JPEG file."""
        with self._encoding:
            if self._jpeg is None:
                drawn = overlay(self._image, self._map, self.verdict.threshold)
                _, data = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                self._jpeg = data.tobytes()
            return self._jpeg


class PageImages(Sink):
    """The sink of the page that takes images. It misses most of them, because nobody looks at so many.

    Args:
        original_bytes: Largest size of the images that are kept as they came, for marks; 0 if nobody may mark any.
    """

    name = "page, images"

    def __init__(self, original_bytes: int = 0) -> None:
        self._most_bytes = original_bytes
        self._rejects: deque[Snapshot] = deque(maxlen=KEPT_REJECTS)
        self._recent: deque[Snapshot] = deque(maxlen=KEPT_RECENT if original_bytes else 1)
        self._opened: deque[Snapshot] = deque(maxlen=KEPT_OPENED)
        # Images are added in the thread of the sink, and opened in those of requests.
        self._changing = threading.Lock()
        # Numbers of images that the loop has handed over, and that were written.
        self._wanted = self._number = 0
        self._watched_at_s = self._live_at_s = self._reject_at_s = float("-inf")

    def wants(self, verdict: Verdict) -> bool:
        """Return whether an image is due. See `Sink.wants`."""
        now_s = time.monotonic()
        is_due = self._wants_live(now_s) or self._wants_reject(verdict, now_s)
        if not is_due or self._wanted - self._number >= _MOST_WAITING:
            return False
        self._wanted += 1
        return True

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Keep an image. See `Sink.write`."""
        now_s = time.monotonic()
        self._number += 1
        snapshot = Snapshot(self._number, frame, verdict, anomaly_map)
        with self._changing:
            if self._wants_reject(verdict, now_s):
                self._reject_at_s = now_s
                self._rejects.append(snapshot)
            self._recent.append(snapshot)
            self._live_at_s = now_s
            self._drop_originals()

    def live(self) -> Snapshot | None:
        """Return the newest image; from now on the loop hands images over more often."""
        self._watched_at_s = time.monotonic()
        with self._changing:
            return self._recent[-1] if self._recent else None

    def rejects(self) -> list[Snapshot]:
        """Return the last rejects, the newest first."""
        with self._changing:
            return list(self._rejects)[::-1]

    def open(self, number: int) -> Snapshot | None:
        """Return the image of a number, and keep it for a while; None if it is not kept any more."""
        with self._changing:
            kept = (*self._opened, *self._rejects, *self._recent)
            found = next((one for one in kept if one.number == number), None)
            if found is not None and found not in self._opened and found not in self._rejects:
                self._opened.append(found)
            return found

    def _drop_originals(self) -> None:
        """Keep as many images as they came as fit: the opened ones, then the newest."""
        left = self._most_bytes
        kept = sorted({*self._rejects, *self._recent} - {*self._opened}, key=lambda one: -one.number)
        for one in (*reversed(self._opened), *kept):
            if one.original is not None:
                left -= one.original.nbytes
                if left < 0:
                    one.original = None

    def _wants_live(self, now_s: float) -> bool:
        is_watched = now_s - self._watched_at_s < _WATCHED_S
        return now_s - self._live_at_s >= (LIVE_EVERY_S if is_watched else UNWATCHED_EVERY_S)

    def _wants_reject(self, verdict: Verdict, now_s: float) -> bool:
        return verdict.is_anomalous and now_s - self._reject_at_s >= REJECT_EVERY_S


def _reduced(image: UInt8Array) -> UInt8Array:
    """Reduce an image so that its longer side has at most `MOST_PX` pixels."""
    height, width = image.shape[:2]
    scale = MOST_PX / max(height, width)
    if scale >= 1.0:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced: UInt8Array = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return reduced
