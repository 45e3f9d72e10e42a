"""Industrial cameras that follow GenICam, with GigE Vision or USB3 Vision, through Aravis.

A camera is opened exclusively, set up from the options of its address, and read in the process. What it does not accept
is an error: a camera with another exposure than the training had decides otherwise. Aravis resends lost packets; an
image that is still incomplete is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import cv2

from edgead.errors import AbsentSourceError, ImageError, SourceError
from edgead.files.addresses import without_secrets
from edgead.streaming.sources.capture_time import CaptureClock
from edgead.streaming.sources.genicam_settings import TRIGGER_OFF, apply_settings, read_settings
from edgead.streaming.sources.introspection import import_library
from edgead.streaming.sources.live import LiveSource
from edgead.streaming.sources.pixel_formats import SUPPORTED, bits_of_pixel, image_from_pixels, is_supported
from edgead.streaming.uri import check_text
from edgead.types import UInt8Array

# A camera that is not waiting for a trigger and gives no image for so long is lost.
SILENCE_S = 5.0
# A search takes a second, so that a camera is found again within 3 seconds.
_LONGEST_WAIT_S = 0.5
# Longest wait of one read, after which a stop is noticed.
_READ_US = 100_000
# Longest wait for a camera to be closed. Each word to a camera that does not answer takes seconds.
_CLOSE_S = 0.5
_BUFFERS = 4
VERSIONS = {"GLib": "2.0", "Aravis": "0.8"}
PACKAGES = "gir1.2-aravis-0.8"
_HINT = "check its power, its cable and its network; arv-tool-0.8 lists the cameras"


def open_genicam(uri: str) -> LiveSource:
    """Open ``genicam://NAME?exposure_us=5000&gain=0&trigger=Line1``.

    Args:
        uri: Address. NAME is the serial number, the ID that arv-tool lists, the IP address or the name that the user
            gave to the camera. `edgead.streaming.sources.genicam_settings` has the options.

    Returns:
        The opened camera.

    Raises:
        AbsentSourceError: The camera does not answer, or another program uses it.
        SourceError: The camera does not accept an option, or Aravis is not installed.
        InputError: An option is unknown or has an invalid value, or the address is not text in UTF-8.
    """
    check_text(uri, without_secrets(uri))
    name, mark, query = uri.partition("://")[2].partition("?")
    settings = read_settings(query) if mark else {}
    shown = without_secrets(uri)
    finder = _Finder(unquote(name), shown)
    fps = settings.pop("fps", None) if settings.get("trigger") == "Software" else None
    return LiveSource(
        uri,
        lambda: GenicamCamera(finder, settings, shown),
        _HINT,
        longest_wait_s=_LONGEST_WAIT_S,
        period_s=0.0 if fps is None else 1.0 / float(fps),
        timestamps="monotonic",
    )


class _Finder:
    """Finds a camera by one of its names.

    Args:
        name: Name in the address.
        shown: Address, for errors.
    """

    def __init__(self, name: str, shown: str) -> None:
        self._name, self._shown = name, shown
        self._id: str | None = None

    def find(self, aravis: Any, glib: Any) -> Any:
        """Return the opened camera.

        Raises:
            AbsentSourceError: No camera has the name.
            SourceError: Several cameras have it.
        """
        # Without a new search Aravis would use an old address, and choose the wrong interface of the network.
        aravis.update_device_list()
        numbers = range(aravis.get_n_devices())
        found = {
            aravis.get_device_id(number): {
                aravis.get_device_id(number),
                aravis.get_device_serial_nbr(number),
                aravis.get_device_address(number),
            }
            for number in numbers
        }
        listed = f"found: {', '.join(found) or 'none'}"
        fitting = [id_ for id_, names in found.items() if (self._id or self._name) in names]
        if len(fitting) > 1:
            raise SourceError(
                f"{self._shown} may be several cameras", hint=f"give one of {', '.join(fitting)}"
            )
        if not self._name:
            raise SourceError(f"{self._shown} names no camera", hint=f"give its serial number; {listed}")
        if self._id is not None and not fitting:
            raise self._absent(listed)
        try:
            # The name that a user gave to a camera is not in the list.
            camera = aravis.Camera.new(fitting[0] if fitting else self._name)
            self._id = camera.get_device_id()
        except glib.Error as error:
            raise self._absent(f"it does not answer: {error.message}" if fitting else listed) from error
        return camera

    def _absent(self, reason: str) -> AbsentSourceError:
        return AbsentSourceError(f"no camera at {self._shown} ({reason})", hint=_HINT)


class GenicamCamera:
    """A camera as a device, whose acquisition runs.

    Args:
        finder: Finder of the camera.
        settings: Options by name, see `apply_settings`.
        shown: Address, for errors.

    Attributes:
        waits_for_signal: Whether each image waits for a signal at an input of the camera.

    Raises:
        AbsentSourceError: The camera does not answer, or another program uses it.
        SourceError: The camera does not accept an option, has another format than those that are supported, or Aravis
            is not installed.
    """

    def __init__(self, finder: _Finder, settings: Mapping[str, float | str], shown: str) -> None:
        self._glib, self._aravis = import_library(VERSIONS, "Aravis", PACKAGES)
        self._shown = shown
        self._stamp_ms = self._fps = 0.0
        self._lost = threading.Event()
        self._stream: Any = None
        self._asked = False
        self._clock = CaptureClock("camera")
        self._camera = finder.find(self._aravis, self._glib)
        self._device = self._camera.get_device()
        # It comes in a thread of Aravis.
        self._on_loss = self._device.connect("control-lost", lambda *_: self._lost.set())
        try:
            self._set_up(settings)
        except SourceError:
            self.release()
            raise

    def _set_up(self, settings: Mapping[str, float | str]) -> None:
        """Take the settings over and start the acquisition."""
        camera, aravis = self._camera, self._aravis
        if camera.is_gv_device() and not self._device.is_controller():
            self._lost.set()
            raise AbsentSourceError(f"{self._shown} is used by another program", hint="end that program")
        # A session that was lost left the camera running: its settings are locked then, and it may go on sending to the
        # old address. A camera that refuses to stop refuses the settings, too.
        with suppress(self._glib.Error):
            camera.stop_acquisition()
        with self._answers():
            apply_settings(camera, aravis, self._glib, settings, self._shown)
            if not is_supported(camera.get_pixel_format()):
                offered = set(camera.dup_available_pixel_formats_as_strings())
                usable = (
                    ", ".join(name for name in SUPPORTED if name in offered)
                    or "nothing: the camera has no other"
                )
                raise SourceError(
                    f"{self._shown} has the format {camera.get_pixel_format_as_string()}, which is not supported",
                    hint=f"set format= to {usable}",
                )
            triggered = _text(camera, self._glib, "TriggerMode") not in ("", TRIGGER_OFF)
            self._by_software = triggered and camera.get_trigger_source() == "Software"
            self.waits_for_signal = triggered and not self._by_software
            if not triggered and camera.is_frame_rate_available():
                self._fps = camera.get_frame_rate()
            camera.set_acquisition_mode(aravis.AcquisitionMode.CONTINUOUS)
            self._stream = camera.create_stream(None, None)
            for _ in range(_BUFFERS):
                self._stream.push_buffer(aravis.Buffer.new_allocate(camera.get_payload()))
            camera.start_acquisition()
        self._last_s = time.monotonic()

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Return True, because a camera that cannot be opened is an error."""
        return True

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Wait for the next image for a moment, and ask for it by a trigger if that is the software's task.

        Returns:
            True, and the image, (H, W) uint8 grey or (H, W, 3) uint8 BGR; None if none has come yet.

        Raises:
            SourceError: The camera is lost.
            ImageError: The image is incomplete.
        """
        if self._lost.is_set():
            raise AbsentSourceError(f"{self._shown} does not answer", hint=_HINT)
        if self._by_software and not self._asked:
            with self._answers():
                self._camera.software_trigger()
            self._asked, self._last_s = True, time.monotonic()
        buffer = self._stream.timeout_pop_buffer(_READ_US)
        if buffer is None:
            if not self.waits_for_signal and time.monotonic() - self._last_s > SILENCE_S:
                self._lost.set()
                raise AbsentSourceError(f"{self._shown} gives no image for {SILENCE_S:g} s", hint=_HINT)
            return True, None
        # Older images that wait are given back.
        while (newer := self._stream.try_pop_buffer()) is not None:
            self._stream.push_buffer(buffer)
            buffer = newer
        self._asked, self._last_s = False, time.monotonic()
        try:
            return True, self._image(buffer)
        finally:
            self._stream.push_buffer(buffer)

    def get(self, property_id: int, /) -> float:
        """Return the time of capture for `cv2.CAP_PROP_POS_MSEC`, the rate for `cv2.CAP_PROP_FPS`, and 0 for others."""
        return {cv2.CAP_PROP_POS_MSEC: self._stamp_ms, cv2.CAP_PROP_FPS: self._fps}.get(property_id, 0.0)

    def release(self) -> None:
        """Stop the acquisition and let go of the camera; one that does not answer is left behind."""
        if self._camera is None:
            return
        self._device.disconnect(self._on_loss)
        references = [self._camera, self._device, self._stream]
        self._camera = self._device = self._stream = None

        def close() -> None:
            with suppress(self._glib.Error):
                if not self._lost.is_set():
                    references[0].stop_acquisition()
                    if references[0].is_gv_device() and references[1].is_controller():
                        references[1].leave_control()
            # Aravis closes the camera with its last reference.
            references.clear()

        closing = threading.Thread(target=close, name="edgead-genicam", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _image(self, buffer: Any) -> UInt8Array:
        """Return the image of a buffer, and remember its timestamp."""
        if buffer.get_status() != self._aravis.BufferStatus.SUCCESS:
            raise ImageError(
                f"{self._shown} gives an incomplete image ({buffer.get_status().value_nick})",
                hint="check the network: the packet size, and that the switch and the adapter keep up",
            )
        # The arrival has a time on the clock that people set. An image may have waited here since then.
        arrived_ns = time.monotonic_ns() - max(0, time.time_ns() - buffer.get_system_timestamp())
        # A camera without a clock of its own has no timestamp.
        stamp_ms = (buffer.get_timestamp() or arrived_ns) / 1e6
        self._stamp_ms = self._clock.captured_at_ns(stamp_ms, arrived_ns, arrived_ns) / 1e6
        code, data = buffer.get_image_pixel_format(), buffer.get_data()
        width, height = buffer.get_image_width(), buffer.get_image_height()
        image = None
        if is_supported(code) and hasattr(buffer, "get_image_padding"):
            image = image_from_pixels(data, code, width, height, buffer.get_image_padding().x_padding)
        elif is_supported(code) and len(data) * 8 == width * height * bits_of_pixel(code):
            # Aravis before 0.8.23 does not tell the padding, so there must be none.
            image = image_from_pixels(data, code, width, height)
        if image is None:
            raise ImageError(f"{self._shown} gives a truncated image", hint="check the camera")
        return image

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Translate an error of the camera."""
        try:
            yield
        except self._glib.Error as error:
            raise AbsentSourceError(f"{self._shown} does not answer ({error.message})", hint=_HINT) from error


def _text(camera: Any, glib: Any, feature: str) -> str:
    """Return the value of a feature; empty if the camera lacks it."""
    try:
        return str(camera.get_string(feature))
    except glib.Error:
        return ""
