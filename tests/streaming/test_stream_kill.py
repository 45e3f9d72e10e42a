"""kill -9 during a stream: the files on the disk are whole, and the next stream succeeds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from edgead.imaging.decode import read_image
from edgead.runtime import FakeSession
from edgead.streaming import open_sinks, open_source, stream
from edgead.streaming.sinks import RejectFolder
from tests.helpers.stream_parts import SIZE

# A killed process would leave incomplete coverage data.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
SOURCE = "synthetic:washer?size=96"


def sinks_in(folder: Path) -> list[str]:
    return [f"jsonl:{folder}/out.jsonl", f"video:{folder}/out.mkv", f"rejects:{folder}/rejects?keep=20"]


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.helpers.stream_parts import SIZE
from edgead.runtime import FakeSession
from edgead.streaming import open_sink, open_source, stream
sinks = [open_sink(uri) for uri in sys.argv[3:]]
stream(FakeSession(SIZE), open_source(sys.argv[2]), sinks, size=SIZE, threshold=0.5)
"""


def lines_of(path: Path) -> list[dict[str, object]]:
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


# Killed early and later, so that different sinks are at work.
@pytest.mark.parametrize("n_lines", [40, 127])
def test_a_killed_stream_leaves_whole_files_and_the_next_stream_continues_them(
    tmp_path: Path, n_lines: int
) -> None:
    path = tmp_path / "out.jsonl"
    arguments = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[2]), SOURCE, *sinks_in(tmp_path)]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < n_lines:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()

    lines = lines_of(path)
    verdicts = [line for line in lines if line["event"] == "verdict"]
    assert [line["frame_index"] for line in verdicts] == list(range(len(verdicts)))
    rejected = [line for line in verdicts if line["is_anomalous"]]
    assert rejected
    images = sorted((tmp_path / "rejects").glob("*.png"))
    # One image may have been half written, and the images in the queue of the sink were not.
    assert min(len(rejected), 20) - 1 - RejectFolder.capacity <= len(images) <= 20
    for image in images:
        assert read_image(image).shape == (96, 96, 3)
        assert read_image(image.with_name(image.stem + "_heat.jpg")).shape == (112, 96, 3)

    with open_source(f"{SOURCE}&frames=10") as source:
        sinks = open_sinks(sinks_in(tmp_path))
        summary = stream(FakeSession(SIZE), source, sinks, size=SIZE, threshold=0.5)
    assert (summary.frames_seen, summary.frames_scored) == (10, 10)
    assert sum(line["event"] == "verdict" for line in lines_of(path)) == len(verdicts) + 10
    assert list((tmp_path / "rejects").glob(".*")) == []
    assert len(list((tmp_path / "rejects").glob("*.png"))) <= 20


VIDEO_SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from tests.streaming.test_sinks import MAP, frame, verdict
from edgead.streaming import open_sink
sink = open_sink(sys.argv[2])
rng = np.random.default_rng(0)
for index in range(300):
    sink.write(frame(rng.integers(0, 255, (96, 96, 3), np.uint8), index), verdict(index), MAP)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_killed_video_plays_except_for_its_last_moments(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    arguments = [sys.executable, "-c", VIDEO_SCRIPT, str(Path(__file__).parents[2]), f"video:{path}"]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    video = cv2.VideoCapture(str(path))
    n_frames = 0
    while video.read()[0]:
        n_frames += 1
    # FFmpeg buffers a quarter of a megabyte; a frame of noise takes at least 4 kB in both codecs.
    assert n_frames >= 300 - 2**18 / 4000
