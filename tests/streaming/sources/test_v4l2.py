"""Cameras of this machine with settings: OpenCV's own V4L2 backend against a driver that answers its system calls."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgead.errors import AbsentSourceError, InputError, SourceError
from edgead.streaming import open_source
from tests.helpers.stream_parts import textured
from tests.helpers.web_camera import jpeg

DEVICE = Path(__file__).parents[2] / "helpers" / "v4l2" / "device.cpp"
PATH = "/dev/v4l/by-id/usb-fake-0aZ9bY8cX7dW6-index0"
# What the process beside it prints: for each address the rate, and of the second image shape, mean colour and age.
SCRIPT = """
import itertools, json, sys, time
from edgead.errors import EdgeadError
from edgead.streaming import open_source
for uri in sys.argv[1:]:
    try:
        with open_source(uri) as source:
            _, frame = itertools.islice(source, 2)
            age_ms = (time.monotonic_ns() - frame.captured_at_ns) / 1e6
            print(json.dumps([source.uri, source.fps, frame.image.shape, frame.image.mean((0, 1)).tolist(), age_ms]))
    except EdgeadError as error:
        print(json.dumps([type(error).__name__, error.what]))
"""
COLOUR = (200, 40, 90)
GOOD = {
    "": (30.0, [480, 640, 3], (130, 130, 130)),
    "?format=MJPG": (30.0, [48, 80, 3], COLOUR),
    "?format=MJPG&width=1280&height=720&fps=15&exposure_us=5000": (15.0, [48, 80, 3], COLOUR),
    "?exposure_us=200&width=1280&height=720": (30.0, [720, 1280, 3], (130, 130, 130)),
}
# The setting that is refused, and the value that the camera has then.
REFUSED = {
    "?width=800&height=600": ("width=800", "640"),
    "?width=1280&height=700&format=MJPG": ("height=700", "720"),
    "?fps=60": ("fps=60", "30"),
    "?format=H264": ("format=H264", "YUYV"),
    "?exposure_us=5050": ("exposure_us=5050", "5000"),
    "?exposure_us=9000000": ("exposure_us=9000000", "500000"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    if shutil.which("g++") is None:
        pytest.skip("no g++: apt-get install g++")
    folder = tmp_path_factory.mktemp("v4l2")
    library, image = folder / "device.so", folder / "image.jpg"
    options = ["-std=c++17", "-O1", "-Wall", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, str(DEVICE), "-ldl", "-o", str(library)], check=True)
    coloured = textured(0)
    coloured[:] = COLOUR
    image.write_bytes(jpeg(coloured))
    cases = [*GOOD, *REFUSED]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *(f"v4l2://{PATH}{case}" for case in cases)],
        env=os.environ | {"LD_PRELOAD": str(library), "FAKE_V4L2": PATH, "FAKE_V4L2_JPEG": str(image)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(cases, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", GOOD)
def test_settings_that_the_camera_accepts(case: str, answers: dict[str, list[Any]]) -> None:
    uri, fps, shape, colour, age_ms = answers[case]
    assert (uri, fps, shape) == (f"v4l2://{PATH}{case}", *GOOD[case][:2])
    # JPEG is lossy.
    assert max(abs(has - expected) for has, expected in zip(colour, GOOD[case][2], strict=True)) < 4
    # The timestamp of the buffer is 20 ms before it is fetched.
    assert age_ms >= 20


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_the_camera_changes_is_named_with_the_one_that_it_has(
    case: str, answers: dict[str, list[Any]]
) -> None:
    kind, what = answers[case]
    assert kind == "SourceError"
    assert set(REFUSED[case]) <= set(what.replace(",", " ").split())


def test_a_camera_that_is_not_there_may_come_later() -> None:
    with pytest.raises(AbsentSourceError) as caught:
        open_source("v4l2:///dev/video987?fps=30")
    assert "/dev/video987" in caught.value.what


def test_an_address_without_a_path_has_a_hint() -> None:
    for uri in ("v4l2://", "v4l2://dev/video0", "v4l2://0"):
        with pytest.raises(SourceError) as caught:
            open_source(uri)
        assert "v4l2:///dev/video0" in str(caught.value.hint)


@pytest.mark.parametrize(
    "query",
    ["", "width=640", "height=480", "exposure=3", "format=MJPEG", "format=MJ", "fps=0", "exposure_us=50"],
)
def test_an_option_that_is_not_usable(query: str) -> None:
    with pytest.raises(InputError):
        open_source(f"v4l2:///dev/video0?{query}")
