import ctypes
import itertools
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from edgead.errors import AbsentSourceError, InputError, SourceError
from edgead.streaming import open_source
from edgead.streaming.sources import LiveSource, gstreamer
from edgead.streaming.sources.gstreamer import csi_pipeline, shown_pipeline
from edgead.types import Frame
from tests.helpers.introspection import needs_library
from tests.helpers.rtsp_camera import free_port, needs_rtsp, rtsp_camera, stamp_of_image_ms

PACKAGES = "gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
needs_gstreamer = needs_library({"Gst": "1.0", "GstApp": "1.0", "GstVideo": "1.0"}, PACKAGES)
# An odd width has padded rows.
RED = "gst:videotestsrc is-live=true pattern=red {}! video/x-raw,width=63,height=48,framerate=50/1"


class SymbolPlace(ctypes.Structure):
    """Dl_info of dladdr."""

    _fields_ = (
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = LiveSource.__init__.__kwdefaults__ | {"first_wait_s": 0.01, "longest_wait_s": 0.02}
    monkeypatch.setattr(LiveSource.__init__, "__kwdefaults__", defaults)


@needs_gstreamer
@pytest.mark.parametrize("live", ["true", "false"])
def test_a_pipeline_is_a_camera_with_its_rate_and_the_right_colours(live: str) -> None:
    with open_source(RED.format("").replace("true", live)) as source:
        assert (source.live, source.fps) == (True, 50.0)
        frames = list(itertools.islice(source, 6))
    for index, frame in enumerate(frames):
        assert (frame.index, frame.image.shape) == (index, (48, 63, 3))
        assert (frame.image == [255, 0, 0]).all()
    # Neither kind of pipeline comes faster than its rate, apart from one image that waited.
    assert frames[-1].captured_at_ns - frames[1].captured_at_ns > 3 / 50 * 1e9


@needs_gstreamer
def test_the_age_of_an_image_has_the_time_in_the_pipeline() -> None:
    with open_source(f"{RED.format('')} ! identity sleep-time=15000 ! queue") as source:
        for frame in itertools.islice(source, 4):
            assert time.monotonic_ns() - frame.captured_at_ns >= 15e6


@needs_gstreamer
def test_a_pipeline_that_ends_is_built_again(caplog: pytest.LogCaptureFixture) -> None:
    with open_source(RED.format("num-buffers=4 ")) as source:
        assert [frame.index for frame in itertools.islice(source, 8)] == list(range(8))
    # A try and its success for each end.
    tries = [record.args[-1] for record in caplog.records]  # type: ignore[index, union-attr]
    assert tries[:2] == [1, 1]


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        ("edgeadsrc", "edgeadsrc"),
        ("videotestsrc ! !", "syntax"),
        ("", "gst:"),
        ("videotestsrc wrong=1", '"wrong"'),
        ("videotestsrc ! audioconvert", "audioconvert"),
        ("videotestsrc ! appsink", "appsink"),
    ],
)
def test_a_pipeline_that_cannot_be_built_is_not_waited_for(pipeline: str, named: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(f"gst:{pipeline}")
    assert not isinstance(caught.value, AbsentSourceError)
    assert named in caught.value.what
    assert caught.value.hint


@needs_gstreamer
def test_a_pipeline_without_its_camera_names_the_element_and_no_secret() -> None:
    pipeline = "souphttpsrc location=http://127.0.0.1:9/S3cret user-id=S3cret ! jpegdec"
    for text in (pipeline, "filesrc location=/nowhere/S3cret ! jpegdec", "v4l2src device=/dev/video987"):
        with pytest.raises(AbsentSourceError) as caught:
            open_source(f"gst:{text}")
        assert f"{text.split()[0]}" in caught.value.what
        assert "S3cret" not in str(caught.value)


@needs_gstreamer
def test_a_pipeline_that_gives_no_image_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "LIMIT_S", 0.2)
    with pytest.raises(AbsentSourceError):
        open_source(f"{RED.format('')} ! identity drop-probability=1")


@needs_gstreamer
def test_a_driver_that_hangs_holds_up_neither_the_opening_nor_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gstreamer, "LIMIT_S", 0.1)
    # A pipe without a writer cannot be opened.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AbsentSourceError):
        open_source(f"gst:filesrc location={tmp_path}/pipe ! jpegdec")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    hanging = [thread for thread in threading.enumerate() if thread.name == "edgead-gstreamer"]
    assert len(hanging) == 2
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))
    for thread in hanging:
        thread.join(30)
        assert not thread.is_alive()


@needs_gstreamer
def test_stopping_does_not_wait_for_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "LIMIT_S", 3600)
    # The second image comes after 1000 seconds.
    source = open_source("gst:videotestsrc is-live=true ! video/x-raw,framerate=1/1000,width=64,height=48")
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    source.close()
    thread.join(10)
    assert not thread.is_alive()


@needs_gstreamer
def test_a_pipeline_that_falls_silent_is_a_lost_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second image comes after 1000 seconds.
    source = open_source("gst:videotestsrc is-live=true ! video/x-raw,framerate=1/1000,width=64,height=48")
    monkeypatch.setattr(gstreamer, "LIMIT_S", 0.1)
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    end_s = time.monotonic() + 30
    while source.trouble is None:
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


@needs_gstreamer
@needs_rtsp
def test_a_pipeline_whose_camera_restarts_goes_on_with_the_true_age() -> None:
    port = free_port()
    uri = (
        f"gst:rtspsrc location=rtsp://127.0.0.1:{port}/line latency=0 protocols=tcp ! rtpjpegdepay ! jpegdec"
    )
    with rtsp_camera(port, "--codec", "jpeg"):
        source = open_source(uri)
        frames = iter(source)
        first = next(frames)
    later: list[Frame] = []
    reader = threading.Thread(target=lambda: later.extend(itertools.islice(frames, 20)))
    reader.start()
    with rtsp_camera(port, "--codec", "jpeg"), source:
        reader.join(30)
    assert not reader.is_alive()
    assert later[-1].index == first.index + 20
    # The image shows the time at which it was made.
    assert abs(later[-1].captured_at_ns / 1e6 - stamp_of_image_ms(later[-1].image)) < 300


def test_the_pipeline_of_a_csi_camera() -> None:
    assert csi_pipeline("csi://1") == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM) ! nvvidconv ! video/x-raw,format=BGRx"
    )
    caps = csi_pipeline("csi://0?width=1280&height=720&fps=30").split(" ! ")[1]
    assert caps == "video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1"


@needs_gstreamer
def test_the_pipeline_of_a_csi_camera_runs_with_elements_of_every_machine() -> None:
    pipeline = csi_pipeline("csi://0?width=320&height=160&fps=25")
    for jetson, any_machine in (
        ("nvarguscamerasrc sensor-id=0", "videotestsrc is-live=true"),
        ("(memory:NVMM)", ""),
        ("nvvidconv", "videoconvert"),
    ):
        assert jetson in pipeline
        pipeline = pipeline.replace(jetson, any_machine)
    with open_source(f"gst:{pipeline}") as source:
        assert source.fps == 25.0
        assert next(iter(source)).image.shape == (160, 320, 3)


@needs_gstreamer
def test_a_csi_camera_on_a_machine_that_is_no_jetson() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("csi://0?width=1280&height=720")
    assert "nvarguscamerasrc" in caught.value.what
    assert not isinstance(caught.value, AbsentSourceError)


@pytest.mark.parametrize("uri", ["csi://", "csi://x", "csi://-1", "csi://0/1"])
def test_a_csi_camera_has_a_number(uri: str) -> None:
    with pytest.raises(SourceError):
        open_source(uri)


@pytest.mark.parametrize("query", ["", "exposure=3", "fps=0", "width=1.5"])
def test_an_option_of_a_csi_camera_that_is_not_usable(query: str) -> None:
    with pytest.raises(InputError):
        open_source(f"csi://0?{query}")


def test_gstreamer_that_is_not_installed_is_one_line_with_its_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "gi"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(SourceError) as caught:
        open_source("gst:videotestsrc")
    assert "python3-gi" in str(caught.value.hint)
    assert not isinstance(caught.value, AbsentSourceError)


@needs_gstreamer
def test_c_plus_plus_exceptions_work_after_gstreamer_is_loaded() -> None:
    open_source(RED.format("")).close()
    place = SymbolPlace()
    process = ctypes.CDLL(None)
    assert process.dladdr(process._Unwind_RaiseException, ctypes.byref(place))
    # libunwind's, which GStreamer brings, does not find the handlers of other libraries.
    assert b"libgcc" in place.library


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        (
            "gst:rtspsrc location=rtsp://me:S3cret@cam/x user-pw=S3cret latency=0 ! jpegdec",
            "gst:rtspsrc location=*** user-pw=*** latency=0 ! jpegdec",
        ),
        ('gst:a key = "S3 \\" cret" ! video/x-raw,width=3', "gst:a key = *** ! video/x-raw,width=3"),
        ("gst:videotestsrc pattern=red num-buffers=3", "gst:videotestsrc pattern=red num-buffers=3"),
    ],
)
def test_the_values_of_unknown_properties_are_hidden(pipeline: str, shown: str) -> None:
    assert shown_pipeline(pipeline) == shown
