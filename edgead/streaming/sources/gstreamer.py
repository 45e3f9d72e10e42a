"""Cameras read by GStreamer: a pipeline of the user, and the cameras on the CSI connectors of a Jetson.

OpenCV's wheels lack GStreamer, so its own Python binding is used. A pipeline is a camera: its newest image wins, and it
is built anew when it fails or ends.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from edgead.errors import AbsentSourceError, ImageError, SourceError
from edgead.files.addresses import HIDDEN, without_secrets
from edgead.streaming.sources.introspection import import_library
from edgead.streaming.sources.live import LiveSource
from edgead.streaming.uri import check_text, number_in, read_options
from edgead.types import UInt8Array

# Longest wait for an image, and for a change of state, in which a driver may hang.
LIMIT_S = 5.0
# Longest wait of one read, after which a stop is noticed.
_READ_S = 0.1

_SINK_NAME = "edgead"
_SINK = f"videoconvert ! video/x-raw,format=BGR ! appsink name={_SINK_NAME} max-buffers=1 drop=true"
VERSIONS = {"GLib": "2.0", "Gst": "1.0", "GstApp": "1.0", "GstVideo": "1.0"}
PACKAGES = "gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
_VALUE = re.compile(r'([\w-]+)(\s*=\s*)("(?:[^"\\]|\\.)*"|[^\s!,;]+)')
# Properties and fields that hold no secret.
_SHOWN = re.compile(
    "bitrate|brightness|device|do-timestamp|drop|exposure.*|format|framerate|gain.*|height|interpolation-method|is-live|"
    "latency|leaky|max-size-.*|mode|name|num-buffers|pattern|sensor-id|sensor-mode|sync|wbmode|width"
)

_log = logging.getLogger(__name__)


def open_pipeline(uri: str) -> LiveSource:
    """Open ``gst:PIPELINE``, such as ``gst:v4l2src device=/dev/video0 ! image/jpeg ! jpegdec``.

    Args:
        uri: Address with the description of a pipeline, without its sink.

    Returns:
        The opened camera.

    Raises:
        SourceError: The pipeline cannot be built, fails, or gives no image; or GStreamer is not installed.
        InputError: The address is not text in UTF-8.
    """
    hint = "try it with gst-launch-1.0, and leave the sink out; gst-inspect-1.0 lists the installed elements"
    return _open(uri, uri.partition(":")[2], hint)


def open_csi(uri: str) -> LiveSource:
    """Open ``csi://NUMBER?width=1920&height=1080&fps=30``, a camera on a CSI connector of a Jetson.

    Args:
        uri: Address. Without options the camera's driver chooses size and rate.

    Returns:
        The opened camera.

    Raises:
        SourceError: The number is invalid, no camera has it, or this machine is no Jetson.
        InputError: An option is unknown or out of range.
    """
    return _open(uri, csi_pipeline(uri), "use it on a Jetson whose GStreamer has NVIDIA's elements")


def csi_pipeline(uri: str) -> str:
    """Return the pipeline of a CSI camera, without its sink. See `open_csi`."""
    number, mark, query = uri.partition("://")[2].partition("?")
    if not (number.isascii() and number.isdigit() and len(number) <= 2):
        raise SourceError(f"{uri} is not a camera", hint="give its number, such as csi://0")
    known = {
        "width": number_in(int, 1, 65536),
        "height": number_in(int, 1, 65536),
        "fps": number_in(int, 1, 1000),
    }
    options = read_options(query, known) if mark else {}
    caps = ["video/x-raw(memory:NVMM)"]
    caps += [f"{name}={options[name]}" for name in ("width", "height") if name in options]
    caps += [f"framerate={options['fps']}/1"] if "fps" in options else []
    return (
        f"nvarguscamerasrc sensor-id={int(number)} ! {','.join(caps)} ! nvvidconv ! video/x-raw,format=BGRx"
    )


def shown_pipeline(text: str) -> str:
    """Hide the values of properties that may be secrets, such as addresses and passwords, for messages and logs.

    Args:
        text: Description of a pipeline.

    Returns:
        The description to show.
    """
    return _VALUE.sub(lambda pair: pair[0] if _SHOWN.fullmatch(pair[1]) else pair[1] + pair[2] + HIDDEN, text)


def _open(uri: str, description: str, hint: str) -> LiveSource:
    shown = without_secrets(shown_pipeline(uri))
    check_text(description, shown)
    return LiveSource(shown, lambda: Pipeline(description, shown, hint), hint, timestamps="monotonic")


class Pipeline:
    """A running pipeline as a device, which has given its first image; that one is not kept.

    Args:
        description: Description of the pipeline, without its sink.
        shown: Address to show in errors, without secrets.
        hint: Hint of the error if the pipeline cannot be built.

    Raises:
        SourceError: The pipeline cannot be built, or GStreamer is not installed.
        AbsentSourceError: The pipeline fails, ends or gives no image.
    """

    def __init__(self, description: str, shown: str, hint: str) -> None:
        glib, self._gst, _, self._video = import_library(VERSIONS, "GStreamer", PACKAGES)
        self._shown = shown
        # Messages of elements may repeat them.
        self._secrets = [pair[3] for pair in _VALUE.finditer(description) if not _SHOWN.fullmatch(pair[1])]
        self._stamp_ms = self._fps = self._last_s = 0.0
        self._released = False
        self._gst.init(None)
        try:
            self._pipeline = self._gst.parse_launch(f"{description} ! {_SINK}")
        except glib.Error as error:
            raise SourceError(
                f"{shown} cannot be built ({self._without_secrets(error.message)})",
                hint=hint,
            ) from error
        self._bus, self._sink = self._pipeline.get_bus(), self._pipeline.get_by_name(_SINK_NAME)
        try:
            self._start()
        except SourceError:
            self.release()
            raise

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True, because a pipeline that does not run is an error."""
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Wait for the next image for a moment.

        Returns:
            True, and the image, (H, W, 3) uint8 BGR; None if none has come yet.

        Raises:
            SourceError: The pipeline has failed or ended, or gives no image.
        """
        self._check_bus()
        sample = self._sink.try_pull_sample(int(_READ_S * 1e9))
        now_s = time.monotonic()
        if sample is None:
            self._check_bus()
            if self._sink.is_eos():
                raise self._lost("has ended")
            if now_s - self._last_s > LIMIT_S:
                raise self._lost(f"gives no image for {LIMIT_S:g} s")
            return True, None
        self._last_s = now_s
        self._stamp_ms = now_s * 1e3 - self._age_ms(sample)
        return True, self._image(sample)

    def get(self, property_id: int, /) -> float:
        """Return the time of capture for `cv2.CAP_PROP_POS_MSEC`, the rate for `cv2.CAP_PROP_FPS`, and 0 for others."""
        return {cv2.CAP_PROP_POS_MSEC: self._stamp_ms, cv2.CAP_PROP_FPS: self._fps}.get(property_id, 0.0)

    def release(self) -> None:
        """Stop the pipeline; one that does not stop is left behind."""
        self._released = True
        if not self._within_limit(lambda: self._pipeline.set_state(self._gst.State.NULL)):
            _log.warning("%s does not stop within %g s, and is left behind", self._shown, LIMIT_S)

    def _start(self) -> None:
        """Start the pipeline and wait for its first image."""
        gst, end_s = self._gst, time.monotonic() + LIMIT_S

        def play() -> None:
            result = self._pipeline.set_state(gst.State.PAUSED)
            if result == gst.StateChangeReturn.ASYNC:
                result = self._pipeline.get_state(int(LIMIT_S * gst.SECOND))[0]
            # Images of a camera have their time already. Others would come as fast as they can be made.
            self._sink.set_property("sync", result != gst.StateChangeReturn.NO_PREROLL)
            if not self._released:
                self._pipeline.set_state(gst.State.PLAYING)

        if not self._within_limit(play):
            raise self._lost(f"does not start within {LIMIT_S:g} s")
        while (sample := self._sink.try_pull_sample(int(_READ_S * 1e9))) is None:
            self._check_bus()
            if self._sink.is_eos() or time.monotonic() > end_s:
                raise self._lost("gives no image")
        self._last_s = time.monotonic()
        info = self._video.VideoInfo.new_from_caps(sample.get_caps())
        self._fps = info.fps_n / info.fps_d if info.fps_d else 0.0

    def _within_limit(self, call: Callable[[], object]) -> bool:
        """Call a function that may hang in a driver; return False if it does not return in time."""
        thread = threading.Thread(target=call, name="edgead-gstreamer", daemon=True)
        thread.start()
        thread.join(LIMIT_S)
        return not thread.is_alive()

    def _check_bus(self) -> None:
        """Take all messages of the elements, and raise SourceError for an error or the end."""
        while (message := self._bus.pop()) is not None:
            if message.type == self._gst.MessageType.EOS:
                raise self._lost("has ended")
            if message.type == self._gst.MessageType.ERROR:
                error, _ = message.parse_error()
                raise self._lost(
                    f"has failed ({message.src.get_name()}: {self._without_secrets(error.message)})"
                )

    def _age_ms(self, sample: Any) -> float:
        """Return the time since the capture of an image in milliseconds, by the clock of the pipeline."""
        gst, clock = self._gst, self._pipeline.get_clock()
        stamp = sample.get_buffer().pts
        if clock is None or stamp == gst.CLOCK_TIME_NONE:
            return 0.0
        running = sample.get_segment().to_running_time(gst.Format.TIME, stamp)
        if running == gst.CLOCK_TIME_NONE:
            return 0.0
        age_ns: int = clock.get_time() - self._pipeline.get_base_time() - running
        return max(0.0, age_ns / 1e6)

    def _image(self, sample: Any) -> UInt8Array:
        """Return the image, (H, W, 3) uint8 BGR, whose rows are padded in GStreamer."""
        info, buffer = self._video.VideoInfo.new_from_caps(sample.get_caps()), sample.get_buffer()
        data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        height, width, stride = info.height, info.width, info.stride[0]
        if data.size < height * stride:
            raise ImageError(f"{self._shown} gives a truncated image", hint="check the camera")
        return data[: height * stride].reshape(height, stride)[:, : 3 * width].reshape(height, width, 3)

    def _lost(self, reason: str) -> AbsentSourceError:
        return AbsentSourceError(f"{self._shown} {reason}", hint="check the camera")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret.strip('"'), HIDDEN)
        return without_secrets(text)
