"""A network camera: GStreamer's RTSP server in its own process."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgead.types import UInt8Array

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"  # noqa: E501


def missing() -> str | None:
    """Return the reason why no RTSP server can run here, or None."""
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer"
    )
    check += "; Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        found = False
    return None if found else f"no RTSP server: apt-get install {PACKAGES}"


NO_RTSP = missing()
needs_rtsp = pytest.mark.skipif(NO_RTSP is not None, reason=str(NO_RTSP))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rtsp_camera(port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A camera at rtsp://127.0.0.1:PORT/line, ended by kill -9 like by a pulled plug.

    Args:
        port: Port of 127.0.0.1.
        options: Options of `rtsp_server.py`.
    """
    script = Path(__file__).with_name("rtsp_server.py")
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(script), str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield server
    finally:
        server.kill()
        server.communicate()


def stamp_of_image_ms(image: UInt8Array) -> int:
    """Return the time at which an image of `rtsp_server.py` was made, in milliseconds of `time.monotonic`.

    Args:
        image: Image, (H, W, 3) uint8, as it was decoded.
    """
    height, width = image.shape[:2]
    side, bits = height // 6, 0
    for row in range(4):
        for column in range(8):
            square = image[
                row * side + 4 : (row + 1) * side - 4,
                column * width // 8 + 4 : (column + 1) * width // 8 - 4,
                1,
            ]
            bits |= int(square.mean() > 125) << (8 * row + column)
    return bits
