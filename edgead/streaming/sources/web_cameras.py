"""Web cameras without FFmpeg: snapshot addresses, and Motion JPEG in parts (`multipart/x-mixed-replace`).

Each image is decoded as an image file is, so a truncated or damaged image is found. FFmpeg would fill its missing part
with grey, and the part under the camera would get a wrong verdict.
"""

from __future__ import annotations

import http.client
import re
import time

import cv2

from edgead.errors import ImageError
from edgead.imaging.decode import MAX_FILE_BYTES, image_from_bytes
from edgead.streaming.sources.web import WebAddress, kind_of
from edgead.types import UInt8Array

# Longest time for one image that comes in drops, none of which exceeds the time limit of a read.
IMAGE_S = 30.0

_READ_BYTES = 2**16
_MAX_HEADER_BYTES = 2**14
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,12})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class SnapshotCamera:
    """A device that requests one image for each read.

    Args:
        address: Address of the image.
        fps: Rate at which it is read, in frames per second.
    """

    def __init__(self, address: WebAddress, fps: float) -> None:
        self._address, self._fps = address, fps

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True, because the address is requested by each read."""
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Request and decode the image.

        Returns:
            True and the image, (H, W, 3) uint8 BGR.

        Raises:
            SourceError: The camera does not answer, or not with an image.
            ImageError: The image is truncated or damaged.
        """
        with self._address.get() as answer:
            data = _Reader(self._address, answer).to_end()
            if kind_of(answer, data, self._address.shown) != "snapshot":
                raise ImageError(f"{self._address.shown} does not give an image", hint="check the camera")
            expected = answer.length
        if expected:
            raise ImageError(f"{self._address.shown} gives a truncated image", hint="check the network")
        return True, _bgr_image(data, self._address.shown)

    def get(self, property_id: int, /) -> float:
        """Return the rate for `cv2.CAP_PROP_FPS`, and 0 for other properties."""
        return self._fps if property_id == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        """Do nothing, because nothing stays open."""


class MotionJpegCamera:
    """A device that reads the images of a Motion JPEG stream, one part after another.

    Args:
        address: Address of the stream.

    Raises:
        SourceError: The camera does not answer.
    """

    def __init__(self, address: WebAddress) -> None:
        self._address = address
        self._answer = address.get()
        # Some cameras count the dashes of the delimiter to the boundary, others do not, and a few name no boundary.
        boundary = str(self._answer.headers.get_param("boundary") or "").strip('-"')
        self._delimiter = b"--" + boundary.encode("latin-1", "replace")
        self._reader = _Reader(address, self._answer)

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True until the stream is released."""
        return not self._answer.closed

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Wait for the next image and decode it.

        Returns:
            True and the image, (H, W, 3) uint8 BGR.

        Raises:
            SourceError: The connection is lost, or the stream has ended.
            ImageError: The image is truncated or damaged; the next read goes on with the next part.
        """
        self._reader.restart()
        self._reader.until(re.compile(re.escape(self._delimiter)), MAX_FILE_BYTES)
        header = self._reader.until(_HEADER_END, _MAX_HEADER_BYTES)
        length = _LENGTH.search(header)
        if length is None:
            # The line break before the delimiter stays behind the image, where decoders ignore it.
            data = self._reader.before(self._delimiter, MAX_FILE_BYTES)
        else:
            data = self._reader.exactly(int(length[1]))
            if self._delimiter != b"--" and self._delimiter in data:
                # The part is shorter than it promised, and the next one must not be lost with it.
                self._reader.put_back(data[data.index(self._delimiter) :])
                raise ImageError(f"{self._address.shown} gives a truncated image", hint="check the camera")
        return True, _bgr_image(data, self._address.shown)

    def get(self, property_id: int, /) -> float:
        """Return 0, because the stream does not say its rate."""
        return 0.0

    def release(self) -> None:
        """Close the connection."""
        self._answer.close()


class _Reader:
    """Bounded reads of an answer; a SourceError if it ends, stalls or exceeds a bound."""

    def __init__(self, address: WebAddress, answer: http.client.HTTPResponse) -> None:
        self._address, self._answer = address, answer
        self._buffer = bytearray()
        self._ended = False
        self.restart()

    def restart(self) -> None:
        """Start the time of the next image."""
        self._deadline_s = time.monotonic() + IMAGE_S

    def to_end(self) -> bytes:
        """Return the whole answer."""
        parts = [self._more()]
        while parts[-1] and sum(map(len, parts)) <= MAX_FILE_BYTES:
            parts.append(self._more())
        return b"".join(parts)

    def until(self, pattern: re.Pattern[bytes], limit: int) -> bytes:
        """Return the bytes before a pattern, and drop both."""
        start = 0
        while (found := pattern.search(self._buffer, start)) is None:
            # The pattern may lie across two reads.
            start = max(0, len(self._buffer) - 100)
            self._fill(limit)
        before = bytes(self._buffer[: found.start()])
        del self._buffer[: found.end()]
        return before

    def before(self, mark: bytes, limit: int) -> bytes:
        """Return the bytes before a mark, which stays."""
        before = self.until(re.compile(re.escape(mark)), limit)
        self.put_back(mark)
        return before

    def exactly(self, length: int) -> bytes:
        """Return a number of bytes."""
        if length > MAX_FILE_BYTES:
            raise self._address.lost(http.client.HTTPException())
        while len(self._buffer) < length:
            self._fill(MAX_FILE_BYTES)
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def put_back(self, data: bytes) -> None:
        """Return bytes to the front, to be read again."""
        self._buffer[:0] = data

    def _fill(self, limit: int) -> None:
        data = self._more()
        if not data:
            raise self._address.lost(http.client.IncompleteRead(b""))
        self._buffer += data
        if len(self._buffer) > limit + _READ_BYTES:
            raise self._address.lost(http.client.HTTPException())

    def _more(self) -> bytes:
        """Read the bytes that are there, at least one; none at the end."""
        data = self._address.read(self._answer, _READ_BYTES)
        if time.monotonic() > self._deadline_s:
            raise self._address.lost(TimeoutError())
        return data


def _bgr_image(data: bytes, shown: str) -> UInt8Array:
    """Decode an image, in the order of channels that OpenCV's cameras give."""
    bgr: UInt8Array = cv2.cvtColor(image_from_bytes(data, f"an image of {shown}"), cv2.COLOR_RGB2BGR)
    return bgr
