"""Addresses of the network as sources: cameras, snapshots and videos.

RTSP is always a camera, over TCP unless `#transport=udp` ends its address. An address of the web may be anything, so
it is requested once before the source is chosen:

    one image                    polled at a rate, `#fps=2` at the end of the address
    images in parts              a camera, read without FFmpeg, so that a truncated image is found
    a video of a known length    every frame, then the end, like a file
    any other video              a camera
"""

from __future__ import annotations

import os

import cv2

from edgead.errors import InputError, SourceError
from edgead.files.addresses import Address, without_secrets
from edgead.streaming.sources.base import Source
from edgead.streaming.sources.ffmpeg import open_ffmpeg
from edgead.streaming.sources.live import LiveSource
from edgead.streaming.sources.rtsp import RtspCamera
from edgead.streaming.sources.video import Video, counts_frames
from edgead.streaming.sources.web import WebAddress, kind_of
from edgead.streaming.sources.web_cameras import MotionJpegCamera, SnapshotCamera
from edgead.streaming.uri import number_in, one_of, read_options

NETWORK_TIMEOUT_MS = 5000
SNAPSHOT_FPS = 1.0

# FFmpeg gives each image as soon as it can, and looks at three images only to find out the frame rate. It does not keep
# these, because images without timestamps look like new ones.
_WEB_OPTIONS = "fflags;nobuffer|flags;low_delay|fpsprobesize;3"
_TIMEOUTS = (
    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
    NETWORK_TIMEOUT_MS,
    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
    NETWORK_TIMEOUT_MS,
)
_HEAD_BYTES = 12


def open_network(uri: str) -> Source:
    """Open a camera, a snapshot address or a video of the network.

    Args:
        uri: Address: ``rtsp://...``, ``rtsps://...``, ``http://...`` or ``https://...``. ``#fps=2`` at the end of a
            snapshot address sets the rate, 1 frame per second by default. ``#transport=udp`` at the end of an address
            of RTSP chooses UDP; the default is ``tcp``.

    Returns:
        The opened source.

    Raises:
        SourceError: Nothing answers, or the answer is no image and no video.
        InputError: The option is invalid, or does not belong to such an address.
    """
    # FFmpeg prints messages that may repeat an address. It reads this variable when it is used for the first time.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    address = Address.parse(uri)
    if uri[:4].lower() == "rtsp":
        return _open_rtsp(uri, address)
    known = {"fps": number_in(float, 0.01, 100)}
    fps = read_options(address.option, known)["fps"] if address.option else None
    opened = _open_web(uri, WebAddress(uri), fps)
    if fps is not None and opened.fps != fps:
        opened.close()
        raise InputError(
            f"{opened.uri} is no snapshot address", hint="leave #fps out, the camera sets its own rate"
        )
    return opened


def _open_rtsp(uri: str, address: Address) -> LiveSource:
    """Open a camera over RTSP."""
    transport = "tcp"
    if address.option:
        # FFmpeg takes TCP for an encrypted address, whatever its options say.
        transports = ("tcp", "udp") if uri[4] == ":" else ("tcp",)
        transport = read_options(address.option, {"transport": one_of(*transports)})["transport"]
    shown = without_secrets(uri)
    return LiveSource(
        uri,
        lambda: RtspCamera(address.with_user(), shown, transport, NETWORK_TIMEOUT_MS / 1e3),
        _camera_hint(shown),
        timestamps="stream",
    )


def _open_web(uri: str, web: WebAddress, fps: float | None) -> Source:
    """Open the source that fits the answer of an address of the web."""
    with web.get() as answer:
        head = b""
        while len(head) < _HEAD_BYTES and (data := web.read(answer, _HEAD_BYTES - len(head))):
            head += data
        kind, has_length = kind_of(answer, head, web.shown), answer.length is not None
    if kind == "snapshot":
        rate = fps or SNAPSHOT_FPS
        return LiveSource(
            uri,
            lambda: SnapshotCamera(web, rate),
            "check the camera",
            period_s=1.0 / rate,
            timestamps="request",
        )
    if kind == "mjpeg":
        return LiveSource(uri, lambda: MotionJpegCamera(web), "check the camera")
    video = open_ffmpeg(web.parsed.with_user(), web.shown, _TIMEOUTS)
    if not video.isOpened():
        raise SourceError(
            f"{web.shown} is not a video that FFmpeg can read", hint="give the address of a camera or a video"
        )
    # A playlist has a length although its camera never ends. A container with an end knows its number of frames.
    if (has_length and kind == "video") or video.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return Video(uri, video, lambda: counts_frames(head))
    video.release()
    return LiveSource(
        uri,
        lambda: open_ffmpeg(web.parsed.with_user(), web.shown, _TIMEOUTS, _WEB_OPTIONS),
        _camera_hint(web.shown),
        # FFmpeg makes the timestamps up if the camera sends none.
        timestamps="none",
        longest_read_s=NETWORK_TIMEOUT_MS / 1e3,
    )


def _camera_hint(shown: str) -> str:
    """Return the hint of an error if a camera does not answer."""
    host = shown.split("/")[2].rpartition("@")[2]
    return f"check the address, the user and password, and that {host} answers"
