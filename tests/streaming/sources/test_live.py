import threading
import time

import cv2
import numpy as np
import pytest

from edgead.errors import SourceError
from edgead.imaging.decode import image_from_bytes
from edgead.streaming import open_source
from edgead.streaming.sources import LiveSource
from edgead.streaming.sources.ffmpeg import VideoDevice
from edgead.types import UInt8Array
from tests.helpers.stream_parts import textured
from tests.helpers.web_camera import jpeg


class Device:
    """A capture device with scripted reads: BGR images, None for a failed read, or an error."""

    def __init__(
        self, reads: list[UInt8Array | Exception | None], opened: bool = True, fps: float = 0.0
    ) -> None:
        self._reads, self._opened, self._fps = reads, opened, fps
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return self._opened

    def read(self) -> tuple[bool, UInt8Array | None]:
        assert not self.released, "read after release crashes OpenCV"
        item = self._reads.pop(0) if self._opened and self._reads else None
        if isinstance(item, Exception):
            raise item
        return item is not None, item

    def get(self, property_id: int, /) -> float:
        return self._fps if property_id == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released = True


def live(devices: list[Device]) -> LiveSource:
    remaining = iter(devices)
    return LiveSource(
        "test://me:secret@line", lambda: next(remaining), "fix it", first_wait_s=0.001, longest_wait_s=0.004
    )


def test_a_missing_camera_is_an_error_with_a_hint() -> None:
    device = Device([], opened=False)
    with pytest.raises(SourceError) as caught:
        live([device])
    assert "test://***@line" in caught.value.what
    assert caught.value.hint == "fix it"
    assert device.released


def test_a_missing_camera_of_this_machine() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("camera:9876")
    assert "camera:9876" in caught.value.what
    assert "edgead doctor" in str(caught.value.hint)


def test_a_lost_camera_is_opened_again_and_counts_on(caplog: pytest.LogCaptureFixture) -> None:
    first = Device([textured(1), textured(2), None])
    dead = [Device([], opened=False) for _ in range(4)]
    crashing = Device([cv2.error("the driver is confused")])
    empty = Device([np.zeros((0, 0, 3), np.uint8)])
    last = Device([textured(3)])
    source = live([first, *dead, crashing, empty, last])
    frames = iter(source)
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    assert all(device.released for device in (first, *dead, crashing, empty))
    # A warning for the first, second and fourth try with its reason, wait and number, and one with the number of tries.
    *tries, back = [record.args[1:] for record in caplog.records]  # type: ignore[index]
    assert [(reason, number) for reason, _, number in tries] == [("no image", number) for number in (1, 2, 4)]
    for (_, wait_s, _), longest_s in zip(tries, (0.001, 0.002, 0.004), strict=True):
        assert longest_s / 2 <= wait_s <= longest_s
    assert back == (7,)
    assert "secret" not in caplog.text
    source.close()
    assert last.released
    assert list(frames) == []


def test_a_camera_that_waits_for_a_signal_has_no_trouble_once_it_is_opened_again() -> None:
    waits = threading.Event()

    class Lost(Device):
        waits_for_signal = True

    class Waiting(Lost):
        def read(self) -> tuple[bool, UInt8Array | None]:
            waits.set()
            time.sleep(0.01)
            return True, None

    source = live([Lost([]), Waiting([])])
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    assert waits.wait(10)
    assert (source.by_signal, source.trouble) == (True, None)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


def test_the_wait_starts_small_again_after_an_image(caplog: pytest.LogCaptureFixture) -> None:
    devices = [Device([textured(1)]), Device([]), Device([textured(2)]), Device([textured(3)])]
    with live(devices) as source:
        frames = iter(source)
        for _ in range(3):
            next(frames)
    arguments = [record.args[1:] for record in caplog.records]  # type: ignore[index]
    assert [values[-1:] for values in arguments] == [(1,), (2,), (2,), (1,), (1,)]
    first, second, _, third, _ = (values[-2] if len(values) > 1 else None for values in arguments)
    assert max(first, third) <= 0.001 <= second


def test_bgr_and_grey_become_rgb() -> None:
    bgr = np.zeros((4, 6, 3), np.uint8)
    bgr[...] = (1, 2, 3)
    grey = np.full((4, 6), 7, np.uint8)
    with live([Device([bgr, grey])]) as source:
        frames = iter(source)
        assert next(frames).image[0, 0].tolist() == [3, 2, 1]
        second = next(frames).image
    assert second.shape == (4, 6, 3)
    assert second[0, 0].tolist() == [7, 7, 7]


class JpegCamera:
    """A camera of this machine as OpenCV gives it with CAP_PROP_CONVERT_RGB off: JPEG files of one row."""

    def __init__(self, files: list[bytes]) -> None:
        self._files = files
        self.converts = True

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def getBackendName(self) -> str:  # noqa: N802
        return "V4L2"

    def get(self, property_id: int, /) -> float:
        return cv2.VideoWriter.fourcc(*"MJPG") if property_id == cv2.CAP_PROP_FOURCC else 0.0

    def set(self, property_id: int, value: float, /) -> bool:
        assert (property_id, value) == (cv2.CAP_PROP_CONVERT_RGB, 0)
        self.converts = False
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        assert not self.converts
        return True, np.frombuffer(self._files.pop(0), np.uint8)[None]

    def release(self) -> None:
        pass


def test_a_truncated_jpeg_of_a_camera_of_this_machine_is_left_out_and_counted() -> None:
    whole = jpeg(textured(90))
    camera = JpegCamera([whole, whole[: len(whole) // 2], whole[:-2], whole])
    device = VideoDevice(camera, "camera:0")  # type: ignore[arg-type]
    with LiveSource("camera:0", lambda: device, "fix it", timestamps="monotonic") as source:
        frames = iter(source)
        first, second = next(frames), next(frames)
    assert (first.index, second.index, source.broken) == (0, 3, 2)
    np.testing.assert_array_equal(first.image, image_from_bytes(whole, "expected"))


def test_an_image_at_the_time_limit_of_a_read_was_held_back_and_is_dropped() -> None:
    class Slow(Device):
        def read(self) -> tuple[bool, UInt8Array | None]:
            time.sleep(0.05)
            return super().read()

    devices = iter([Slow([textured(1), textured(2)]), Device([textured(3)])])
    source = LiveSource("test", lambda: next(devices), "fix it", first_wait_s=0.001, longest_read_s=0.04)
    with source:
        frame = next(iter(source))
    np.testing.assert_array_equal(frame.image[..., ::-1], textured(3))


def test_a_camera_whose_images_stay_late_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sources.live.LATE_FOR_S", 0.05)

    class Buffered(Device):
        """A camera whose buffers hold each image for 3 seconds."""

        def get(self, property_id: int, /) -> float:
            time.sleep(0.02)
            late_ms = time.monotonic() * 1e3 - 3000
            return late_ms if property_id == cv2.CAP_PROP_POS_MSEC else 0.0

    devices = iter([Buffered([textured(level) for level in range(200)]), Device([textured(3)])])
    source = LiveSource("test", lambda: next(devices), "fix it", first_wait_s=0.001, timestamps="monotonic")
    ages_s = []
    with source:
        for frame in source:
            ages_s.append((time.monotonic_ns() - frame.captured_at_ns) / 1e9)
            if ages_s[-1] < 1.0:
                break
    assert 1 < len(ages_s) < 200
    assert min(ages_s[:-1]) >= 3.0


@pytest.mark.parametrize(("reported", "fps"), [(25.0, 25.0), (0.0, None), (-1.0, None), (90000.0, None)])
def test_a_nonsense_rate_is_no_rate(reported: float, fps: float | None) -> None:
    with live([Device([], fps=reported)]) as source:
        assert source.fps == fps


def test_stopping_ends_a_long_wait() -> None:
    source = LiveSource("test", lambda: Device([]), "hint", first_wait_s=3600, longest_wait_s=3600)
    threading.Timer(0.05, source.stop).start()
    assert list(source) == []
    source.close()


def test_closing_does_not_wait_for_a_read_that_hangs_since_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgead.streaming.sources.live.CLOSE_S", 60.0)
    reading, release = threading.Event(), threading.Event()

    class Hanging(Device):
        def read(self) -> tuple[bool, UInt8Array | None]:
            reading.set()
            release.wait(30)
            return False, None

    device = Hanging([])
    source = LiveSource("test", lambda: device, "hint")
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    assert reading.wait(10)
    source.stop()
    now_s = time.monotonic
    with monkeypatch.context() as later:
        # So much time has passed with the other cameras of the stream.
        later.setattr(time, "monotonic", lambda: now_s() + 60.0)
        source.close()
    assert not device.released, "releasing under a read crashes OpenCV"
    release.set()
    thread.join(10)
    assert device.released
