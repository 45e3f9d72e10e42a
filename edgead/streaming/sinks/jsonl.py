r"""JSON lines, for programs that read verdicts: a controller, a database, a spreadsheet.

    {"event": "verdict", "time": ..., "source": ..., "part": ..., "frame_index": ...,
     "anomaly_score": ..., "threshold": ..., "share_of_threshold": ..., "is_anomalous": ...,
     "latency_ms": ..., "age_ms": ...,
     "regions": [{"x_px": ..., "y_px": ..., "width_px": ..., "height_px": ..., "area_px": ..., "highest_value": ...,
                  "polygon": [[x, y], ...]}, ...]}
    {"event": "withheld", "time": ..., "source": ..., "frame_index": ..., "reason": ...}
    {"event": "no_signal", "time": ..., "cause": ..., "reason": ..., "silent_s": ...}
    {"event": "signal", "time": ..., "silent_s": ...}

Times are UTC. Each line is written by one system call as soon as its verdict is made: a kill at any moment leaves
whole lines, and a reader that follows the file gets each line at once. In a source, a byte of a file name that is not
UTF-8 is written as ``\xfc`` and a backslash as two.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from dataclasses import asdict

from edgead.errors import SinkError
from edgead.files.parsing import json_text
from edgead.files.records import utc_now
from edgead.streaming.freshness import Signal
from edgead.streaming.sinks.base import Sink
from edgead.text import path_text
from edgead.types import Float32Array, Frame, Verdict

# Longer than the longest line, because `edgead.imaging.regions` limits the number of regions and corners.
_TAIL_BYTES = 2**20

_log = logging.getLogger(__name__)


class JsonLines(Sink):
    """JSON lines appended to a file or printed to standard output.

    Lines that the file already has stay, except a last line that a power cut left unfinished.

    Args:
        path: File to append to, or ``-`` for standard output.

    Raises:
        SinkError: The file cannot be opened, or its content is not lines.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        if path == "-":
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)
            if self._regular:
                self._cut_unfinished_line(self._file)
        except OSError as error:
            self.close()
            raise SinkError(
                f"cannot write {path} ({error.strerror})", hint="check the path and its rights"
            ) from error

    def write(self, frame: Frame, verdict: Verdict, anomaly_map: Float32Array) -> None:
        """Write the verdict as a line. See `Sink.write`."""
        self._line(
            "verdict",
            source=path_text(frame.source),
            part=verdict.part,
            frame_index=verdict.frame_index,
            anomaly_score=verdict.anomaly_score,
            threshold=verdict.threshold,
            share_of_threshold=verdict.share_of_threshold,
            is_anomalous=verdict.is_anomalous,
            latency_ms=round(verdict.latency_ms, 3),
            age_ms=None if verdict.age_ms is None else round(verdict.age_ms, 3),
            regions=[asdict(region) for region in verdict.regions],
        )

    def withheld(self, frame: Frame, reason: str) -> None:
        """Write the missing verdict as a line. See `Sink.withheld`."""
        self._line("withheld", source=frame.source, frame_index=frame.index, reason=reason)

    def signal(self, signal: Signal) -> None:
        """Write the loss of the signal, or its return, as a line."""
        silent_s = round(signal.silent_s, 3)
        if signal.present:
            self._line("signal", silent_s=silent_s)
        else:
            self._line("no_signal", cause=signal.cause, reason=signal.reason, silent_s=silent_s)

    def _line(self, event: str, **values: object) -> None:
        """Write one line; on a full disk, remove the part of it that was written."""
        text = json_text({"event": event, "time": utc_now("milliseconds"), **values}, indent=None)
        if self._path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        if self._file is None:
            raise SinkError(f"{self._path} is closed", hint="open the sink again")
        data = text.encode()
        try:
            written = os.write(self._file, data)
            if written < len(data):
                # The disk is full. The part that was written must not stay as half a line.
                if self._regular:
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise SinkError(f"disk full while writing {self._path}", hint="free some space and run again")
        except OSError as error:
            raise SinkError(
                f"cannot write {self._path} ({error.strerror})", hint="free some space or check the path"
            ) from error

    def _cut_unfinished_line(self, file: int) -> None:
        """Remove an unfinished last line; raise SinkError if the file does not hold lines."""
        size = os.fstat(file).st_size
        tail = os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        unfinished = len(tail) - (tail.rfind(b"\n") + 1)
        if unfinished == size == 0:
            return
        if unfinished == len(tail):
            raise SinkError(f"{self._path} does not hold lines", hint="choose another file")
        if unfinished:
            os.ftruncate(file, size - unfinished)
            _log.warning("%s: removed the unfinished last line of an interrupted run", self._path)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
