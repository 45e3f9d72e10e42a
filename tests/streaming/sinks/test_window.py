import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

XVFB = shutil.which("Xvfb")

SCRIPT = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from tests.streaming.test_sinks import BACK, LOST, MAP, frame, rejected, textured, verdict
import cv2
from edgead.errors import AbsentSourceError
from edgead.streaming import open_sink, open_source
from edgead.streaming.sinks import StopStream

# PyAV and OpenCV bring a library of windows each.
try:
    open_source("rtsp://127.0.0.1:9/line")
except AbsentSourceError:
    assert "av" in sys.modules

with open_sink("window:") as sink:
    sink.tick()
    for index in range(5):
        sink.write(*rejected(index))
    sink.state(LOST)
    sink.tick()
    sink.state(BACK)
    sink.withheld(frame(textured(8)), "the map is not finite")
    sink.write(frame(textured(9)), verdict(9), MAP)
    print("shown", flush=True)
    cv2.destroyAllWindows()  # as if the user closed it
    try:
        sink.tick()
    except StopStream:
        print("asked for the end", flush=True)
sink.close()
"""


@pytest.mark.skipif(XVFB is None, reason="no display to open a window on: apt-get install xvfb")
def test_a_window_shows_frames_and_ends_the_stream_when_it_is_closed() -> None:
    assert XVFB is not None
    # Xvfb chooses a free display and prints its number. Without -noreset it starts anew when the process that tries the
    # display ends, and refuses the next one meanwhile.
    with subprocess.Popen(
        [XVFB, "-displayfd", "1", "-nolisten", "tcp", "-noreset"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as display:
        try:
            assert display.stdout is not None
            number = display.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[3])],
                env={**os.environ, "DISPLAY": f":{number}"},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            display.terminate()
    assert done.stdout.split("\n")[:2] == ["shown", "asked for the end"], done.stderr
    assert done.returncode == 0
