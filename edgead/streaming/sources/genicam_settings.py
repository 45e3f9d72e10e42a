"""Settings of a GenICam camera in the options of its address, which are read back.

    format=Mono8          pixel format, by the name that the camera gives to it
    width=640, height=480 size of the image in pixels, from the present offset
    exposure_us=5000      exposure time in microseconds; switches the automatic exposure off
    gain=3                gain in the unit of the camera, dB for most; switches the automatic gain off
    fps=10                images per second; with ``trigger=software``, triggers per second
    trigger=Line1         an image for each signal at an input of the camera; ``software`` for each request of the
                          stream; ``off`` for a rate of its own

A setting without an option stays as the camera has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgead.errors import AbsentSourceError, SourceError
from edgead.streaming.uri import number_in, read_options

TRIGGER_OFF = "Off"
# Cameras round an exposure to their own step.
_TOLERANCE = 0.01


def _name(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("give a name of the camera, in ASCII")
    return text


def _trigger(text: str) -> str:
    text = _name(text)
    return {"software": "Software", "off": TRIGGER_OFF}.get(text.lower(), text)


# In the order in which they are set: the format limits the size, the exposure the rate, and a rate ends the trigger.
_OPTIONS: dict[str, Callable[[str], float | str]] = {
    "format": _name,
    "width": number_in(int, 1),
    "height": number_in(int, 1),
    "exposure_us": number_in(float, 0),
    "gain": number_in(float, -1000),
    "fps": number_in(float, 0.001),
    "trigger": _trigger,
}


def read_settings(query: str) -> dict[str, float | str]:
    """Read the options of an address.

    Args:
        query: Text of the options.

    Returns:
        The settings, in the order in which they are set.

    Raises:
        InputError: An option is unknown or has an invalid value.
    """
    options = read_options(query, _OPTIONS)
    return {name: options[name] for name in _OPTIONS if name in options}


def apply_settings(
    camera: Any, aravis: Any, glib: Any, settings: Mapping[str, float | str], shown: str
) -> None:
    """Set up a camera, and check what it has then.

    Args:
        camera: Camera of Aravis.
        aravis: Module of Aravis.
        glib: Module of GLib.
        settings: Settings of `read_settings`.
        shown: Address, for errors.

    Raises:
        AbsentSourceError: The camera does not answer.
        SourceError: It does not accept a setting.
    """
    # Without it Aravis passes on any number, and what a camera does then differs.
    camera.set_range_check_policy(aravis.RangeCheckPolicy.ENABLE)
    for name, value in settings.items():
        change, present = _ACCESS[name]
        reason = ""
        try:
            change(camera, aravis, value)
        except glib.Error as error:
            reason = f" ({error.message})"
            if error.domain == "arv-device-error-quark" and error.code == aravis.DeviceError.TIMEOUT:
                raise AbsentSourceError(
                    f"{shown} does not answer{reason}", hint="check the network"
                ) from error
        try:
            has = present(camera)
        except glib.Error:
            raise SourceError(f"{shown} has no setting {name}{reason}", hint="leave it out") from None
        if reason or not _is_same(value, has):
            raise SourceError(
                f"{shown} does not accept {name}={_shown(value)}, it has {_shown(has)}{reason}",
                hint=_hint(camera, name),
            )


def _set_exposure(camera: Any, aravis: Any, value: float | str) -> None:
    if camera.is_exposure_auto_available():
        camera.set_exposure_time_auto(aravis.Auto.OFF)
    camera.set_exposure_time(value)


def _set_gain(camera: Any, aravis: Any, value: float | str) -> None:
    if camera.is_gain_auto_available():
        camera.set_gain_auto(aravis.Auto.OFF)
    camera.set_gain(value)


def _set_trigger(camera: Any, _: Any, value: float | str) -> None:
    if value == TRIGGER_OFF:
        camera.clear_triggers()
    else:
        camera.set_trigger(value)


def _present_trigger(camera: Any) -> str:
    mode = str(camera.get_string("TriggerMode"))
    return mode if mode == TRIGGER_OFF else str(camera.get_trigger_source())


# Functions that change a setting and that return its present value.
_ACCESS: dict[str, tuple[Callable[[Any, Any, float | str], None], Callable[[Any], float | str]]] = {
    "format": (
        lambda camera, _, value: camera.set_pixel_format_from_string(value),
        lambda camera: str(camera.get_pixel_format_as_string()),
    ),
    "width": (
        lambda camera, _, value: camera.set_integer("Width", value),
        lambda camera: float(camera.get_integer("Width")),
    ),
    "height": (
        lambda camera, _, value: camera.set_integer("Height", value),
        lambda camera: float(camera.get_integer("Height")),
    ),
    "exposure_us": (_set_exposure, lambda camera: float(camera.get_exposure_time())),
    "gain": (_set_gain, lambda camera: float(camera.get_gain())),
    "fps": (
        lambda camera, _, value: camera.set_frame_rate(value),
        lambda camera: float(camera.get_frame_rate()),
    ),
    "trigger": (_set_trigger, _present_trigger),
}


def _is_same(wanted: float | str, has: float | str) -> bool:
    if isinstance(wanted, str) or isinstance(has, str):
        return wanted == has
    return abs(wanted - has) <= _TOLERANCE * abs(wanted)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


def _hint(camera: Any, name: str) -> str:
    if name == "format":
        return f"give one of {', '.join(camera.dup_available_pixel_formats_as_strings())}"
    if name == "trigger":
        return f"give off or one of {', '.join(camera.dup_available_trigger_sources())}"
    return "give a value that the camera offers"
