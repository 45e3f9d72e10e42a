"""Sinks of verdicts: one module for each kind, and `open_sink`, which parses the address of a sink."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edgead.errors import InputError, SinkError
from edgead.files.addresses import shown_mistyped, without_secrets
from edgead.streaming.sinks.base import Plan, Sink, SinkCount, StopStream
from edgead.streaming.sinks.jsonl import JsonLines
from edgead.streaming.sinks.line_file import FSYNC_S, KEEP_FILES, LinePolicy
from edgead.streaming.sinks.modbus import Modbus, plan_modbus
from edgead.streaming.sinks.mqtt import Mqtt, plan_mqtt
from edgead.streaming.sinks.opcua import OpcUa, plan_opcua
from edgead.streaming.sinks.prometheus import Prometheus, plan_prometheus
from edgead.streaming.sinks.rejects import KEEP, RejectFolder
from edgead.streaming.sinks.status import StatusLine
from edgead.streaming.sinks.video import KEEP_SEGMENTS, SEGMENT_S, VIDEO_FPS, AnnotatedVideo
from edgead.streaming.sinks.webhook import Webhook, plan_webhook
from edgead.streaming.sinks.window import Window
from edgead.streaming.uri import number_in, split_options

__all__ = [
    "AnnotatedVideo",
    "JsonLines",
    "Modbus",
    "Mqtt",
    "OpcUa",
    "Prometheus",
    "RejectFolder",
    "Sink",
    "SinkCount",
    "StatusLine",
    "StopStream",
    "Webhook",
    "Window",
    "open_sink",
    "open_sinks",
    "plan_sinks",
]

_KINDS = (
    "jsonl:FILE (or jsonl:- for the terminal), video:FILE, rejects:FOLDER, mqtt://HOST/TOPIC?spool=FILE, "
    "webhook:https://HOST/PATH#spool=FILE, modbus://HOST/?registers=ADDRESS, opcua:PORT, prometheus:PORT, "
    "status: and window:"
)
# Sinks that take the events of several cameras.
_SHARED = ("jsonl", "mqtt", "mqtts", "webhook", "status")


def open_sinks(uris: Sequence[str], *, fps: float | None = None) -> list[Sink]:
    """Open the sinks of several addresses, or none of them. All addresses are read before the first sink is opened.

    Args:
        uris: Addresses of the sinks, see `open_sink`.
        fps: Frame rate of the source in frames per second; None if unknown.

    Returns:
        The opened sinks, in the order of the addresses.

    Raises:
        SinkError: A sink cannot be opened, or two sinks write to one place.
        InputError: An option of an address is unknown or has an invalid value.
    """
    plans, names = plan_sinks(uris, fps=fps), [without_secrets(uri) for uri in uris]
    with ExitStack() as stack:
        sinks = [stack.enter_context(plan.open()) for plan in plans]
        stack.pop_all()
    for number, (sink, name) in enumerate(zip(sinks, names, strict=True)):
        # Addresses may differ in their secrets only, and a name stands for one sink in counts and messages.
        earlier = names[:number].count(name)
        sink.name = f"{name} ({earlier + 1})" if earlier else name
    return sinks


def plan_sinks(uris: Sequence[str], *, fps: float | None = None, are_shared: bool = False) -> list[Plan]:
    """Read the addresses of several sinks, without opening any of them.

    Args:
        uris: Addresses of the sinks, see `open_sink`.
        fps: Frame rate of the source in frames per second; None if unknown.
        are_shared: Whether the sinks get the events of several cameras.

    Returns:
        What to open, in the order of the addresses.

    Raises:
        SinkError: An address is unknown or has an error, two sinks write to one place, or a sink cannot be shared.
        InputError: An option of an address is unknown or has an invalid value.
    """
    plans = [_plan(uri, fps) for uri in uris]
    for uri in uris if are_shared else ():
        if uri.partition(":")[0] not in _SHARED:
            raise SinkError(
                f"{without_secrets(uri)!r} is for one camera",
                hint=f"give each camera its own sink in a file for --config; {', '.join(_SHARED)} take several",
            )
    names = [without_secrets(uri) for uri in uris]
    seen: dict[object, str] = {}
    for plan, name in zip(plans, names, strict=True):
        key = _identity(plan.place)
        others = [seen[key]] if key in seen else []
        others += [other for one, other in zip(plans, names, strict=True) if _renames_to(one, plan)]
        if others:
            raise SinkError(
                f"sinks {others[0]!r} and {name!r} write to one place", hint="give each its own place"
            )
        seen[key] = name
    return plans


def _renames_to(plan: Plan, other: Plan) -> bool:
    """Return whether a sink renames its files to the place of another."""
    if not plan.keep or isinstance(other.place, str):
        return False
    found = re.fullmatch(r"(.+)\.([1-9][0-9]{0,8})", os.path.realpath(other.place), re.DOTALL)
    return found is not None and found[1] == os.path.realpath(plan.place) and int(found[2]) <= plan.keep


def _identity(place: Path | str) -> object:
    """Return the identity of a place: the inode of a file, or the real path of a file that is not there yet.

    Raises:
        SinkError: No file can have this name.
    """
    if isinstance(place, str):
        return place
    try:
        found = place.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return os.path.realpath(place)
    except (OSError, ValueError) as error:
        # A name that is too long, has a null character, or goes through links in a circle.
        reason = error.strerror if isinstance(error, OSError) else error
        raise SinkError(f"cannot write to {place} ({reason})", hint="choose another name") from error
    return found.st_dev, found.st_ino


def open_sink(uri: str, *, fps: float | None = None) -> Sink:
    """Open the sink of an address.

    ``jsonl:FILE?max_mb=100&keep=5&fsync_s=1``
        One JSON object per line, appended to a file. Above `max_mb` the file is renamed, and `keep` renamed files
        stay. A line is flushed to the disk within `fsync_s` seconds.
    ``jsonl:-``
        One JSON object per line on standard output.
    ``video:FILE?fps=25&segment_s=3600&keep=24``
        Frames with heat map and verdict, .mkv or .webm, in segments of `segment_s` seconds of playback, of which `keep`
        older ones stay.
    ``rejects:FOLDER?keep=1000&max_mb=500``
        The newest images above the threshold: `keep` images, and `max_mb` megabytes with their heat maps.
    ``mqtt://USER:PASSWORD@HOST:PORT/TOPIC?spool=FILE&keep=100000``
        Records for an MQTT broker, which wait in the file `spool` while the broker is away. ``mqtts://`` encrypts,
        with the options `ca`, `cert` and `key`.
    ``webhook:https://USER:PASSWORD@HOST/PATH#spool=FILE&keep=100000``
        Records that are posted to a web address, with the options `spool`, `keep` and `ca` behind the ``#``.
    ``modbus://HOST:PORT/?registers=ADDRESS&coils=ADDRESS&unit=1``
        The latest verdict in the memory of a PLC.
    ``opcua:PORT``, ``opcua://USER:PASSWORD@HOST:PORT/?cert=FILE&key=FILE``
        An OPC UA server with the latest state, for this machine or for others.
    ``prometheus:PORT``, ``prometheus:HOST:PORT``
        Figures for Prometheus, on a web server of this stream.
    ``status:``
        One line in the terminal.
    ``window:``
        A window; Esc or q ends the stream.

    A ``?`` begins options; in a name it is written ``??``.

    Args:
        uri: Address of the sink.
        fps: Frame rate of the source in frames per second, for a video without an `fps` of its own; None if unknown.

    Returns:
        The opened sink.

    Raises:
        SinkError: The address is unknown, or the sink cannot be opened.
        InputError: An option of the address is unknown or has an invalid value.
    """
    (sink,) = open_sinks([uri], fps=fps)
    return sink


def _plan(uri: str, fps: float | None) -> Plan:
    """Read the address of a sink. See `open_sink`."""
    kind, colon, target = uri.partition(":")
    if colon and kind in _FILES:
        if not target.replace("??", "_").partition("?")[0]:
            raise SinkError(f"sink {uri!r} names no place to write to", hint=f"give {_KINDS}")
        return _FILES[kind](target, fps)
    if kind in ("mqtt", "mqtts"):
        return plan_mqtt(uri)
    if kind == "modbus":
        return plan_modbus(uri)
    if kind == "opcua":
        return plan_opcua(uri)
    if kind == "webhook":
        return plan_webhook(target)
    if kind == "prometheus":
        return plan_prometheus(uri)
    if uri == "status:":
        return Plan("standard error", StatusLine)
    if uri == "window:":
        return Plan("window", Window)
    raise SinkError(f"unknown sink {shown_mistyped(uri)!r}", hint=f"give {_KINDS}")


def _plan_jsonl(target: str, fps: float | None) -> Plan:
    known = {"max_mb": number_in(float, 0.001), "keep": number_in(int, 1), "fsync_s": number_in(float, 0)}
    path, options = split_options(target, known)
    if "keep" in options and "max_mb" not in options:
        raise InputError("option 'keep' has no use without 'max_mb'", hint="add max_mb=100")
    max_mb = options.get("max_mb")
    policy = LinePolicy(
        None if max_mb is None else round(max_mb * 1e6),
        int(options.get("keep", KEEP_FILES)),
        options.get("fsync_s", FSYNC_S),
    )
    place = "standard output" if path == "-" else Path(path)
    return Plan(place, partial(JsonLines, path, policy), 0 if max_mb is None else policy.keep)


def _plan_video(target: str, fps: float | None) -> Plan:
    known = {
        "fps": number_in(float, 0.1, 1000),
        "segment_s": number_in(float, 1),
        "keep": number_in(int, 1),
    }
    path, options = split_options(target, known)
    open_video = partial(
        AnnotatedVideo,
        Path(path),
        options.get("fps", fps or VIDEO_FPS),
        segment_s=options.get("segment_s", SEGMENT_S),
        keep=int(options.get("keep", KEEP_SEGMENTS)),
    )
    return Plan(Path(path), open_video)


def _plan_rejects(target: str, fps: float | None) -> Plan:
    path, options = split_options(target, {"keep": number_in(int, 1), "max_mb": number_in(float, 0.001)})
    max_mb, keep = options.get("max_mb"), options.get("keep")
    max_bytes = None if max_mb is None else round(max_mb * 1e6)
    if keep is None and max_mb is None:
        keep = KEEP
    open_folder = partial(RejectFolder, Path(path), None if keep is None else int(keep), max_bytes)
    return Plan(Path(path), open_folder)


# Kinds with a place to write to. Each function gets the address after the kind, and the frame rate of the source.
_FILES: dict[str, Callable[[str, float | None], Plan]] = {
    "jsonl": _plan_jsonl,
    "video": _plan_video,
    "rejects": _plan_rejects,
}
