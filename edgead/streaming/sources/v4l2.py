"""Cameras of this machine with settings in the address, through OpenCV's backend for Video4Linux (V4L2).

A driver takes the nearest value that its camera has, and says nothing. So each setting is read back, and another value
than the one in the address is an error: a camera with another exposure than the training had decides otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2

from edgead.errors import InputError, SourceError
from edgead.streaming.sources.ffmpeg import VideoDevice, text_from_fourcc
from edgead.streaming.sources.live import LiveSource
from edgead.streaming.uri import check_text, number_in, read_options

# V4L2 counts exposure times in steps of 100 microseconds.
_EXPOSURE_STEP_US = 100
_MANUAL_EXPOSURE = 1
# Drivers store a rate as a fraction of small integers.
_FPS_TOLERANCE = 0.01


def _format(text: str) -> str:
    if not (len(text) == 4 and text.isascii() and text.isprintable()):
        raise ValueError(
            "give four letters, such as MJPG or YUYV; v4l2-ctl --list-formats-ext lists those of a camera"
        )
    return text


_OPTIONS: dict[str, Callable[[str], float | str]] = {
    "format": _format,
    "width": number_in(int, 1, 65536),
    "height": number_in(int, 1, 65536),
    "fps": number_in(float, 0.01, 1000),
    "exposure_us": number_in(float, _EXPOSURE_STEP_US, 1e8),
}
_PROPERTIES = {
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
    "fps": cv2.CAP_PROP_FPS,
}


def open_v4l2(uri: str) -> LiveSource:
    """Open ``v4l2:///dev/video0?format=MJPG&width=1280&height=720&fps=30&exposure_us=5000``.

    Args:
        uri: Address with the path of the camera, which may be a link in ``/dev/v4l/by-id``. Settings without an option
            stay as the driver has them. `exposure_us`, in microseconds, switches the automatic exposure off.

    Returns:
        The opened camera.

    Raises:
        AbsentSourceError: The camera cannot be opened.
        SourceError: It does not accept a setting.
        InputError: An option is unknown or has an invalid value, or the address is not text in UTF-8.
    """
    check_text(uri, uri)
    path, mark, query = uri.partition("://")[2].partition("?")
    if not path.startswith("/"):
        raise SourceError(
            f"{uri} has no path of a camera", hint="write v4l2:///dev/video0, with three slashes"
        )
    settings = read_options(query, _OPTIONS) if mark else {}
    if ("width" in settings) != ("height" in settings):
        raise InputError(f"{uri} has one side of a size", hint="give width and height")
    return LiveSource(
        uri,
        lambda: _open_device(path, settings, uri),
        "check the cable, that no other program uses it, and its path with v4l2-ctl --list-devices",
        timestamps="monotonic",
    )


def _open_device(path: str, settings: Mapping[str, float | str], shown: str) -> VideoDevice:
    """Open the camera, and set it up if it is there."""
    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if capture.isOpened():
        try:
            _apply(capture, settings, shown)
        except SourceError:
            capture.release()
            raise
    return VideoDevice(capture, shown)


def _apply(capture: cv2.VideoCapture, settings: Mapping[str, float | str], shown: str) -> None:
    """Set up a camera, and check what it has then.

    Raises:
        SourceError: The camera has another value.
    """
    # The format comes first, because it limits the size, and the size limits the rate.
    if "format" in settings:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*str(settings["format"])))
    for name, number in _PROPERTIES.items():
        if name in settings:
            capture.set(number, float(settings[name]))
    if "exposure_us" in settings:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE)
        capture.set(cv2.CAP_PROP_EXPOSURE, round(float(settings["exposure_us"]) / _EXPOSURE_STEP_US))
    # After all of them, because one setting may change another.
    for name, wanted in settings.items():
        has = _present(capture, name)
        if not _is_same(name, wanted, has):
            shown_values = [value if isinstance(value, str) else f"{value:.10g}" for value in (wanted, has)]
            raise SourceError(
                f"{shown} does not accept {name}={shown_values[0]}, it has {shown_values[1]}",
                hint="v4l2-ctl --list-formats-ext and --list-ctrls show what the camera offers",
            )


def _present(capture: cv2.VideoCapture, name: str) -> float | str:
    """Return the value of a setting that the driver reports."""
    if name == "format":
        return text_from_fourcc(int(capture.get(cv2.CAP_PROP_FOURCC)))
    if name == "exposure_us":
        if capture.get(cv2.CAP_PROP_AUTO_EXPOSURE) != _MANUAL_EXPOSURE:
            return "an automatic exposure"
        return float(capture.get(cv2.CAP_PROP_EXPOSURE) * _EXPOSURE_STEP_US)
    return float(capture.get(_PROPERTIES[name]))


def _is_same(name: str, wanted: float | str, has: float | str) -> bool:
    if name == "fps":
        return abs(float(wanted) - float(has)) <= _FPS_TOLERANCE * float(wanted)
    return wanted == has
