"""Sinks of verdicts: one module for each kind, and `open_sink`, which parses the address of a sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgead.errors import SinkError
from edgead.files.addresses import without_secrets
from edgead.streaming.sinks.base import Sink, StopStream
from edgead.streaming.sinks.jsonl import JsonLines
from edgead.streaming.sinks.rejects import KEEP, RejectFolder
from edgead.streaming.sinks.status import StatusLine
from edgead.streaming.sinks.video import VIDEO_FPS, AnnotatedVideo
from edgead.streaming.sinks.window import Window
from edgead.streaming.uri import number_in, split_options

__all__ = [
    "AnnotatedVideo",
    "JsonLines",
    "RejectFolder",
    "Sink",
    "StatusLine",
    "StopStream",
    "Window",
    "open_sink",
]

_KINDS = "jsonl:FILE (or jsonl:- for the terminal), video:FILE, rejects:FOLDER, status: and window:"

# The kinds that write to a place, each with its options.
_OPTIONS: Mapping[str, Mapping[str, Callable[[str], float]]] = {
    "jsonl": {},
    "video": {"fps": number_in(float, 0.1, 1000)},
    "rejects": {"keep": number_in(int, 1)},
}


def open_sink(uri: str, *, fps: float | None = None) -> Sink:
    """Open the sink of an address.

    ``jsonl:FILE``, ``jsonl:-``    one JSON object per line, appended to a file or printed to standard output
    ``video:FILE?fps=25``          frames with heat map and verdict, .mkv or .webm
    ``rejects:FOLDER?keep=1000``   the newest `keep` images above the threshold
    ``status:``                    one line in the terminal
    ``window:``                    a window; Esc or q ends the stream

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
    kind, colon, target = uri.partition(":")
    if colon and kind in _OPTIONS:
        name, options = split_options(target, _OPTIONS[kind])
        if not name:
            raise SinkError(f"sink {uri!r} names no place to write to", hint=f"give {_KINDS}")
        if kind == "jsonl":
            return JsonLines(name)
        if kind == "video":
            return AnnotatedVideo(Path(name), options.get("fps", fps or VIDEO_FPS))
        return RejectFolder(Path(name), int(options.get("keep", KEEP)))
    if uri == "status:":
        return StatusLine()
    if uri == "window:":
        return Window()
    raise SinkError(f"unknown sink {without_secrets(uri)!r}", hint=f"give {_KINDS}")
