"""A GigE Vision camera: the one that Aravis brings for tests, in its own process, on the loopback interface.

It listens on one port only, so all of its tests are in one file.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.introspection import needs_library

PROGRAM = shutil.which("arv-fake-gv-camera-0.8")
SERIAL = "GV77"
# 127.0.0.1 and the port of GigE Vision in the table of the kernel.
_LISTENS = "0100007F:0F74"

if PROGRAM is None:
    needs_camera = pytest.mark.skipif(True, reason="no fake GigE Vision camera: apt-get install aravis-tools")
else:
    needs_camera = needs_library({"GLib": "2.0", "Aravis": "0.8"}, "gir1.2-aravis-0.8")


@contextmanager
def fake_camera(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A camera with the serial number `SERIAL`, ended by kill -9 like by a pulled plug.

    Args:
        options: Options of arv-fake-gv-camera.
    """
    assert PROGRAM is not None
    camera = subprocess.Popen([PROGRAM, "-i", "127.0.0.1", "-s", SERIAL, *options], stdout=subprocess.DEVNULL)
    try:
        while _LISTENS not in Path("/proc/net/udp").read_text():
            assert camera.poll() is None, "the camera has ended"
            time.sleep(0.01)
        yield camera
    finally:
        camera.kill()
        camera.wait()
