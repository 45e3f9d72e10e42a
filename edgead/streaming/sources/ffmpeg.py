"""Videos and cameras of OpenCV: options of FFmpeg for one video only, and Motion JPEG without FFmpeg's decoder.

FFmpeg fills the missing part of a truncated JPEG with grey, and the part under the camera would get a wrong verdict.
Therefore the images of Motion JPEG are taken as they are and decoded as image files are, which finds the damage.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from edgead.imaging.decode import image_from_bytes
from edgead.types import UInt8Array

# One decoding thread is enough for small images, and the inference needs the cores. Each more holds an image back.
_ONE_THREAD = (cv2.CAP_PROP_N_THREADS, 1)

_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# OpenCV reads the variable when it opens a video. No other video may be opened while it is set.
_opening = threading.Lock()


def open_ffmpeg(name: str, shown: str, properties: Sequence[int] = (), options: str = "") -> VideoDevice:
    """Open a file or an address with FFmpeg.

    Args:
        name: Absolute path or address.
        shown: Name of it in errors, without secrets.
        properties: Pairs of OpenCV properties and values, in one sequence.
        options: Options of FFmpeg as ``name;value|name;value``. Options in the environment variable
            OPENCV_FFMPEG_CAPTURE_OPTIONS come after them, and replace them.

    Returns:
        The device, opened or not.
    """
    with _opening, _options(options):
        return VideoDevice(cv2.VideoCapture(name, cv2.CAP_FFMPEG, (*properties, *_ONE_THREAD)), shown)


@contextmanager
def _options(options: str) -> Iterator[None]:
    """Set the options for the duration of the block."""
    before = os.environ.get(_VARIABLE)
    if options:
        os.environ[_VARIABLE] = options if before is None else f"{options}|{before}"
    try:
        yield
    finally:
        if options and before is None:
            del os.environ[_VARIABLE]
        elif options and before is not None:
            os.environ[_VARIABLE] = before


class VideoDevice:
    """A video or a camera of OpenCV whose JPEG images are decoded as image files are.

    Args:
        capture: Video or camera of OpenCV, opened or not.
        shown: Name of it in errors, without secrets.
    """

    def __init__(self, capture: cv2.VideoCapture, shown: str) -> None:
        self._capture, self._shown = capture, shown
        self.codec = ""
        if capture.isOpened():
            self.codec = text_from_fourcc(int(capture.get(cv2.CAP_PROP_FOURCC)))
        self.is_jpeg = self.codec.upper() in ("MJPG", "JPEG") and _gives_bytes(capture)

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True if the video is opened."""
        return self._capture.isOpened()

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Read the next image.

        Returns:
            Whether there is one, and the image, (H, W, 3) uint8 BGR.

        Raises:
            ImageError: The image is truncated or damaged; the next read goes on with the next one.
        """
        good, image = self._capture.read()
        if not (good and self.is_jpeg):
            return good, image
        data = np.ascontiguousarray(image).tobytes()
        bgr: UInt8Array = cv2.cvtColor(
            image_from_bytes(data, f"an image of {self._shown}"), cv2.COLOR_RGB2BGR
        )
        return True, bgr

    def get(self, property_id: int, /) -> float:
        """Return a property of OpenCV."""
        return self._capture.get(property_id)

    def release(self) -> None:
        """Close the video."""
        self._capture.release()


def _gives_bytes(capture: cv2.VideoCapture) -> bool:
    """Make OpenCV give JPEG images as they are; return False if it cannot."""
    if capture.getBackendName() == "V4L2":
        return capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    return capture.set(cv2.CAP_PROP_FORMAT, -1)


def text_from_fourcc(fourcc: int) -> str:
    """Return the four letters of a codec or a pixel format.

    Args:
        fourcc: Number of OpenCV.

    Returns:
        The letters; an empty text if the number has none.
    """
    letters = (fourcc & 0xFFFFFFFF).to_bytes(4, "little").decode("ascii", "replace")
    return letters if letters.isprintable() else ""
