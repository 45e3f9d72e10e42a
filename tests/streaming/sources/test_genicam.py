import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgead.errors import AbsentSourceError, InputError, SourceError
from edgead.runtime import FakeSession
from edgead.streaming import StreamPolicy, open_source, stream
from edgead.streaming.sources import LiveSource, Source, genicam, open_when_there
from edgead.streaming.sources.capture_time import CaptureClock
from edgead.streaming.sources.genicam_settings import apply_settings, read_settings
from edgead.types import Float32Array, Frame, UInt8Array, Verdict
from tests.helpers.fake_genicam_camera import SERIAL, fake_camera, needs_camera
from tests.helpers.stream_parts import SIZE, StateRecord

URI = f"genicam://{SERIAL}"
MAX_AGE_S = 0.5


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genicam, "_LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(genicam, "SILENCE_S", 0.5)
    monkeypatch.setattr("edgead.streaming.health.NO_SIGNAL_AFTER_S", 0.4)


@pytest.fixture(scope="module")
def camera() -> Iterator[subprocess.Popen[bytes]]:
    with fake_camera() as process:
        yield process


@pytest.fixture
def found_once(camera: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes a second. The camera of these tests stays where it is."""
    from gi.repository import Aravis

    if Aravis.get_n_devices() == 0:
        wait_for(lambda: Aravis.update_device_list() or Aravis.get_n_devices() > 0)
    monkeypatch.setattr(Aravis, "update_device_list", lambda: None)


def wait_for(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def open_camera(query: str = "", name: str = SERIAL) -> Source:
    """Open the camera; on a busy machine it may answer too late."""
    source = open_when_there(lambda: open_source(f"genicam://{name}{query}"), 60, threading.Event())
    assert source is not None
    return source


def shows_the_pattern(image: UInt8Array) -> bool:
    """Whether a grey image is whole: the camera draws slopes that move with each image."""
    grey = image[..., 0].astype(int)
    return bool((image == image[..., :1]).all() and ((grey[1:, :-1] - grey[:-1, 1:]) == 0).all())


@needs_camera
def test_an_incomplete_image_is_left_out_and_counted() -> None:
    # First in this file, before the camera of the others. Of a thousand packets four are lost, and an image has 190.
    with fake_camera("-r", "4"), open_camera("?format=Mono8&width=512&height=512&fps=100") as source:
        assert isinstance(source, LiveSource)
        for frame in source:
            assert shows_the_pattern(frame.image)
            if source.broken and frame.index > 2:
                break


@needs_camera
@pytest.mark.usefixtures("camera")
def test_images_of_a_camera_that_is_found_by_its_serial_number() -> None:
    with open_camera(
        "?format=Mono8&width=320&height=200&exposure_us=4000&gain=1&fps=100&trigger=off"
    ) as source:
        assert (source.live, source.fps, source.dropped) == (True, 100.0, 0)
        frames = list(itertools.islice(source, 6))
    # A busy machine may lose packets.
    assert frames[-1].index == 5 + source.broken
    assert all(frame.image.shape == (200, 320, 3) and shows_the_pattern(frame.image) for frame in frames)
    assert len({frame.image.tobytes() for frame in frames}) == 6
    times = [frame.captured_at_ns for frame in frames]
    assert times == sorted(times)


@needs_camera
@pytest.mark.usefixtures("found_once")
@pytest.mark.parametrize("name", [f"Aravis-Fake-{SERIAL}", "127.0.0.1"])
@pytest.mark.parametrize("format_", ["RGB8", "BayerRG8", "BayerGB8"])
def test_formats_and_other_names(name: str, format_: str) -> None:
    with open_camera(f"?format={format_}&width=64&height=48", name) as source:
        image = next(iter(source)).image
    assert image.shape == (48, 64, 3)
    assert np.ptp(image.mean((0, 1))) > 1, "the pattern has colours"


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_images_of_an_aravis_that_does_not_tell_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    from gi.repository import Aravis

    monkeypatch.delattr(Aravis.Buffer, "get_image_padding")
    with open_camera("?format=Mono8&width=64&height=48") as source:
        image = next(iter(source)).image
        assert shows_the_pattern(image)
        # Rows that are longer than the image says.
        monkeypatch.setattr(Aravis.Buffer, "get_image_width", lambda _: 60)
        reader = threading.Thread(target=lambda: list(source))
        reader.start()
        wait_for(lambda: source.broken)
    reader.join(30)
    assert not reader.is_alive()


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_a_format_that_is_not_supported_is_named_with_those_that_are() -> None:
    with pytest.raises(SourceError) as caught:
        open_source(f"{URI}?format=Mono16")
    assert "Mono16" in caught.value.what
    assert {"Mono8", "RGB8", "BayerGR8"} <= set(str(caught.value.hint).replace(",", "").split())
    assert not isinstance(caught.value, AbsentSourceError)


@needs_camera
@pytest.mark.usefixtures("found_once")
@pytest.mark.parametrize(
    ("setting", "has"),
    [
        ("gain=99", "0"),
        ("exposure_us=1", "3000"),
        ("width=64000", "512"),
        ("format=Mono7", "Mono8"),
        ("trigger=hardware", "Line0"),
        # It is rounded to the highest rate without an error.
        ("fps=100000", "1000"),
    ],
)
def test_a_setting_that_the_camera_does_not_accept_is_named_with_the_one_that_it_has(
    setting: str, has: str
) -> None:
    from gi.repository import Aravis, GLib

    camera = Aravis.Camera.new(f"Aravis-Fake-{SERIAL}")
    before = read_settings("format=Mono8&width=512&gain=0&exposure_us=3000&trigger=off")
    try:
        apply_settings(camera, Aravis, GLib, before, URI)
        with pytest.raises(SourceError) as caught:
            apply_settings(camera, Aravis, GLib, read_settings(setting), URI)
    finally:
        camera.get_device().leave_control()
    assert {setting, has} <= set(caught.value.what.replace(",", " ").split())
    assert not isinstance(caught.value, AbsentSourceError)


@pytest.mark.parametrize(
    "query", ["", "exposure=3", "gain=x", "fps=0", "width=1.5", "format=%ff", "trigger=a%00"]
)
def test_an_option_that_is_not_usable(query: str) -> None:
    with pytest.raises(InputError):
        open_source(f"{URI}?{query}")


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_an_address_without_the_name_of_a_camera_lists_those_that_are_there() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("genicam://")
    assert SERIAL in str(caught.value)
    assert not isinstance(caught.value, AbsentSourceError)
    with pytest.raises(AbsentSourceError) as caught:
        open_source("genicam://Nowhere-1")
    assert SERIAL in str(caught.value)


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_a_camera_that_another_program_uses_may_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from gi.repository import Aravis

    # The fake camera gives a second program no answer for seconds. Real ones refuse it at once.
    with monkeypatch.context() as patch:
        patch.setattr(Aravis.GvDevice, "is_controller", lambda _: False)
        with pytest.raises(AbsentSourceError):
            open_source(URI)
    open_camera().close()


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_a_camera_that_a_lost_session_left_running_sends_to_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gi.repository import Aravis

    def slowly(*arguments: Any) -> None:
        # In this time the camera sends its next image if it is running.
        time.sleep(0.3)
        apply_settings(*arguments)

    lost = Aravis.Camera.new(Aravis.get_device_id(0))
    lost.set_acquisition_mode(Aravis.AcquisitionMode.CONTINUOUS)
    lost.start_acquisition()
    lost.get_device().leave_control()
    monkeypatch.setattr(genicam, "apply_settings", slowly)
    monkeypatch.setattr(genicam, "SILENCE_S", 5.0)
    with open_camera("?format=Mono8&width=64&height=48&fps=50&trigger=off") as source:
        assert isinstance(source, LiveSource)
        device, image = source._device, None
        assert device is not None
        # A lost camera would raise an error.
        while image is None:
            whole, image = device.read()
            assert whole


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_each_read_triggers_a_camera_whose_trigger_is_the_software() -> None:
    with open_camera("?format=Mono8&trigger=software&fps=50") as source:
        frames = list(itertools.islice(source, 4))
    assert frames[-1].index == 3 + source.broken
    assert all((first.image != second.image).any() for first, second in itertools.pairwise(frames))
    open_camera("?trigger=off").close()


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_a_camera_that_waits_for_a_signal_is_not_lost_and_its_first_image_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cameras: list[genicam.GenicamCamera] = []
    open_it = genicam.GenicamCamera.__init__

    def opened(self: genicam.GenicamCamera, *arguments: Any) -> None:
        open_it(self, *arguments)
        cameras.append(self)

    monkeypatch.setattr(genicam.GenicamCamera, "__init__", opened)
    monkeypatch.setattr(genicam, "SILENCE_S", 0.05)
    frames: list[Frame] = []
    source = open_camera("?format=Mono8&trigger=Line0")
    reader = threading.Thread(target=lambda: frames.extend(itertools.islice(source, 1)))
    reader.start()
    time.sleep(0.3)
    assert not frames
    # The fake camera has no input, so a signal is the one trigger that it has.
    (device,) = cameras
    device._camera.set_trigger_source("Software")
    for _ in range(30):
        device._camera.software_trigger()
        reader.join(1)
        if not reader.is_alive():
            break
    source.close()
    assert not reader.is_alive()
    assert len(cameras) == 1, "it was opened again"
    assert (frames[0].index, source.dropped, source.by_signal) == (source.broken, 0, True)
    open_camera("?trigger=off").close()


@pytest.fixture
def stamps_ms(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Timestamps of the camera by the computed times of capture. The camera has the clock of this machine."""
    stamps_ms: dict[int, float] = {}
    latest_ms = 0.0
    compute = CaptureClock.captured_at_ns

    def remembered(self: CaptureClock, stamp_ms: float, asked_ns: int, came_ns: int) -> int:
        nonlocal latest_ms
        captured_ns = compute(self, stamp_ms, asked_ns, came_ns)
        # Times since 1970 come from the camera, others from this program.
        if stamp_ms > 1e12:
            latest_ms = stamp_ms
        stamps_ms[captured_ns] = latest_ms
        return captured_ns

    monkeypatch.setattr(CaptureClock, "captured_at_ns", remembered)
    return stamps_ms


def late_by_ms(frame: Frame, stamps_ms: dict[int, float]) -> float:
    """Difference between the computed and the true time of capture."""
    to_unix_ms = (time.time_ns() - time.monotonic_ns()) / 1e6
    return frame.captured_at_ns / 1e6 + to_unix_ms - stamps_ms[frame.captured_at_ns]


@needs_camera
@pytest.mark.usefixtures("found_once")
def test_images_that_waited_before_the_first_read_are_old(stamps_ms: dict[int, float]) -> None:
    with open_camera("?format=Mono8&width=64&height=48&fps=100&trigger=off") as source:
        # All buffers are full long before.
        time.sleep(0.8)
        frames = list(itertools.islice(source, 8))
    assert max(abs(late_by_ms(frame, stamps_ms)) for frame in frames) < 300


class Ages(StateRecord):
    """True ages of the images at their verdicts, from the clock in the camera, which is that of this machine."""

    def __init__(self, stamps_ms: dict[int, float]) -> None:
        super().__init__()
        self._stamps_ms = stamps_ms
        self.true_ms: list[float] = []

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        assert verdict.age_ms is not None
        late_ms = late_by_ms(frame, self._stamps_ms)
        self.true_ms.append(late_ms + verdict.age_ms)
        super().write(frame, verdict, anomaly_map)


@needs_camera
def test_a_camera_that_is_stopped_and_unplugged_is_reported_and_returns(
    camera: subprocess.Popen[bytes], stamps_ms: dict[int, float]
) -> None:
    record, stop, summaries = Ages(stamps_ms), threading.Event(), []
    source = open_camera("?format=Mono8&width=320&height=240&fps=50&trigger=off")
    policy = StreamPolicy(max_age_s=MAX_AGE_S)

    def run() -> None:
        with source:
            summaries.append(
                stream(
                    FakeSession(SIZE), source, [record], size=SIZE, threshold=2.0, policy=policy, stop=stop
                )
            )

    def more(count: int) -> None:
        target = len(record.verdicts) + count
        wait_for(lambda: len(record.verdicts) >= target)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        more(10)
        # Shorter than the limit of the source: an image that was on its way is old when it comes.
        os.kill(camera.pid, signal.SIGSTOP)
        wait_for(lambda: record.losses)
        os.kill(camera.pid, signal.SIGCONT)
        more(10)
        camera.kill()
        camera.wait()
        wait_for(lambda: source.trouble is not None)
        with fake_camera():
            more(10)
            stop.set()
            thread.join(30)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert {each.causes for each in record.losses} == {("no_image",)}
    assert record.states.count("no_signal") >= 2
    assert record.states[-1] == "stopped"
    assert record.states[-2] != "no_signal"
    assert max(record.true_ms) <= MAX_AGE_S * 1e3 + 300
    counts = summaries[0]
    kinds = counts.frames_scored, counts.frames_dropped, counts.frames_withheld, counts.frames_broken
    assert counts.frames_seen == sum(kinds)
