"""Sources of frames: one module for each kind, and `open_source`, which parses the address of a source."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from edgead.errors import AbsentSourceError, SourceError
from edgead.files.addresses import shown_mistyped
from edgead.imaging.decode import IMAGE_SUFFIXES
from edgead.streaming.sources.base import Source
from edgead.streaming.sources.genicam import open_genicam
from edgead.streaming.sources.gstreamer import open_csi, open_pipeline
from edgead.streaming.sources.images import ImageSource, WatchedFolder, open_images
from edgead.streaming.sources.live import LiveSource, open_camera
from edgead.streaming.sources.network import open_network
from edgead.streaming.sources.synthetic import SyntheticSource, open_synthetic
from edgead.streaming.sources.v4l2 import open_v4l2
from edgead.streaming.sources.video import Video, open_video
from edgead.streaming.sources.waiting import open_when_there

__all__ = [
    "ImageSource",
    "LiveSource",
    "Source",
    "SyntheticSource",
    "Video",
    "WatchedFolder",
    "open_source",
    "open_when_there",
]  # fmt: skip

# Functions that open the source of an address, by its beginning.
_OPENERS: dict[str, Callable[[str], Source]] = {
    "camera:": lambda uri: open_camera(uri.partition(":")[2]),
    "csi://": open_csi,
    "genicam://": open_genicam,
    "gst:": open_pipeline,
    "http://": open_network,
    "https://": open_network,
    "rtsp://": open_network,
    "rtsps://": open_network,
    "synthetic:": open_synthetic,
    "v4l2://": open_v4l2,
}
_START = re.compile("|".join(_OPENERS), re.IGNORECASE)


def open_source(uri: str, *, watch: bool = False, bit_depth: int | None = None) -> Source:
    """Open the source of an address.

    ``0``, ``camera:0``, ``/dev/video0``   a camera of this machine; live
    ``v4l2:///dev/video0?width=1280&...``  a camera of this machine with settings; live
    ``csi://0?width=1920&height=1080``     a camera on a CSI connector of a Jetson; live
    ``genicam://NAME?exposure_us=5000``    an industrial camera, GigE Vision or USB3 Vision; live
    ``gst:PIPELINE``                       a pipeline of GStreamer; live
    ``rtsp://...``, ``http://...``         a network camera; live, but a video that has an end is not
    ``rtsp://...#transport=udp``           a network camera over UDP; live
    ``http://.../image.jpg#fps=2``         a snapshot address, polled twice a second; live
    ``synthetic:KIND?fps=10``              synthetic parts (`open_synthetic` has all options); live if fps is given
    a folder, an image                     its images sorted by name; with `watch`, then each new image
    any other file                         a video

    Args:
        uri: Address of the source.
        watch: Whether to wait for new images in a folder.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Returns:
        The opened source.

    Raises:
        AbsentSourceError: The source is not there.
        SourceError: The source cannot be opened, or `watch` is set for a source that is no folder.
        InputError: An option of the address is unknown or has an invalid value.
    """
    if uri.isascii() and uri.isdigit():
        opened: Source = open_camera(uri)
    elif uri.startswith("/dev/video"):
        opened = open_camera(uri.removeprefix("/dev/video"))
    elif (start := _START.match(uri)) is not None:
        opened = _OPENERS[start[0].lower()](uri)
    else:
        return _open_path(uri, watch, bit_depth)
    if watch:
        opened.close()
        raise SourceError(f"{opened.uri} cannot be watched", hint="give --watch for a folder only")
    return opened


def _open_path(uri: str, watch: bool, bit_depth: int | None) -> Source:
    """Open a folder, an image or a video."""
    path = Path(uri)
    # Not `path.exists`, which raises an error for a name that is too long.
    if not uri or "://" in uri or not os.path.exists(uri):
        raise AbsentSourceError(
            f"source {shown_mistyped(uri)!r} is not there",
            hint="give a camera number, a video file, a folder of images, rtsp://..., http://..., v4l2://..., "
            "genicam://..., csi://..., gst:PIPELINE or synthetic:KIND",
        )
    if path.is_dir():
        return WatchedFolder(path, bit_depth=bit_depth) if watch else open_images(path, bit_depth)
    if watch:
        raise SourceError(f"{uri} cannot be watched", hint="give --watch for a folder only")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(uri, [path], bit_depth)
    return open_video(path)
