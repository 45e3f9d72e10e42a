import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgead.errors import MissingExtraError
from edgead.streaming import open_source
from edgead.streaming.sources.rtsp import RtspCamera
from tests.helpers.h264_file import write_h264
from tests.helpers.rtsp_camera import needs_rtsp


@needs_rtsp
def test_colours_are_those_of_a_video_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 255, (96, 130), np.uint8) for _ in range(12)]
    path = write_h264(tmp_path / "line.mkv", images, 25, "tune=zerolatency key-int-max=5")
    camera, file = RtspCamera(str(path), "line", "tcp", 5.0), cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert camera.get(cv2.CAP_PROP_FPS) == 25
    # The decoder holds the last image back, which is an old one when a camera ends.
    for number in range(len(images) - 1):
        good, image = camera.read()
        assert good
        assert camera.get(cv2.CAP_PROP_POS_MSEC) == number * 40
        np.testing.assert_array_equal(image, file.read()[1])
    assert camera.read() == (False, None)
    camera.release()
    assert not camera.isOpened()
    assert camera.read() == (False, None)


def test_without_its_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError) as caught:
        open_source("rtsp://127.0.0.1:9/line")
    assert "edgead[rtsp]" in str(caught.value.hint)
