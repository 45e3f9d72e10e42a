"""Videos that a real H.264 encoder has made: x264, by GStreamer in the system's Python, which OpenCV's wheels lack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgead.types import UInt8Array
from tests.helpers.rtsp_camera import SYSTEM_PYTHON

_SCRIPT = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
pipeline.set_state(Gst.State.NULL)
sys.exit(message.type == Gst.MessageType.ERROR)
"""


def write_h264(path: Path, images: Iterable[UInt8Array], fps: int, encoder: str) -> Path:
    """Encode images as a Matroska file.

    Args:
        path: File to write, .mkv.
        images: Grey images of one size, (H, W) uint8.
        fps: Frame rate in frames per second.
        encoder: Options of GStreamer's x264enc.
    """
    frames = np.stack(list(images))
    size = f"width={frames.shape[2]} height={frames.shape[1]} framerate={fps}/1"
    pipeline = (
        f"fdsrc fd=0 ! rawvideoparse format=gray8 {size} ! videoconvert ! video/x-raw,format=I420 "
        f"! x264enc {encoder} ! video/x-h264,stream-format=avc ! matroskamux ! filesink location={path}"
    )
    subprocess.run([SYSTEM_PYTHON, "-c", _SCRIPT, pipeline], input=frames.tobytes(), check=True)
    return path
