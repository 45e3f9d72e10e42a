"""Where verdicts go: one small file per kind, and `open_sink`, the one place that reads a sink's address."""

from __future__ import annotations

from pathlib import Path

from edgead.errors import SinkError
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


def open_sink(uri: str, *, fps: float | None = None) -> Sink:
    """Open what a sink's address names.

    ``jsonl:FILE``, ``jsonl:-``    a JSON object a line; appended to a file, or to standard output
    ``video:FILE?fps=25``          the frames with heat map and verdict; .mkv or .webm
    ``rejects:FOLDER?keep=1000``   the images above the threshold, the newest `keep` of them
    ``status:``                    one line in the terminal
    ``window:``                    a window; Esc or q ends the stream

    fps: the source's rate, used for a video that names none. Raises SinkError for an address that is none of
    these or cannot be opened, InputError for an option that is not known.
    """
    kind, colon, target = uri.partition(":")
    if colon and kind in ("jsonl", "video", "rejects"):
        if not target.partition("?")[0]:
            raise SinkError(f"sink {uri!r} names no place to write to: give {_KINDS}")
        if kind == "jsonl":
            return JsonLines(split_options(target, {})[0])
        if kind == "video":
            target, options = split_options(target, {"fps": number_in(float, 0.1, 1000)})
            return AnnotatedVideo(Path(target), options.get("fps", fps or VIDEO_FPS))
        target, options = split_options(target, {"keep": number_in(int, 1)})
        return RejectFolder(Path(target), int(options.get("keep", KEEP)))
    if uri == "status:":
        return StatusLine()
    if uri == "window:":
        return Window()
    raise SinkError(f"unknown sink {uri!r}: give {_KINDS}")
