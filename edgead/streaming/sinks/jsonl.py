"""JSON lines, for programs that read verdicts: a controller, a database, a spreadsheet.

Each line is a record of `edgead.streaming.record`, written by one system call as soon as its event happens: a kill at
any moment leaves whole lines, and a reader that follows the file gets each line at once.
"""

from __future__ import annotations

import io
import os
import sys

from edgead.streaming.record import Record
from edgead.streaming.sinks.base import RecordSink
from edgead.streaming.sinks.line_file import LineFile, LinePolicy


class JsonLines(RecordSink):
    """JSON lines appended to a file or printed to standard output.

    Args:
        path: File to append to, or ``-`` for standard output.
        policy: Rotation and flushing of a file.

    Raises:
        SinkError: The file cannot be opened, or its content is not lines.
    """

    def __init__(self, path: str, policy: LinePolicy | None = None) -> None:
        self._file = None if path == "-" else LineFile(path, policy or LinePolicy())

    def record(self, record: Record) -> None:
        """Write the record as a line. See `RecordSink.record`."""
        line = record.text + "\n"
        if self._file is None:
            _print(line)
        else:
            self._file.append(line.encode())

    def tick(self) -> None:
        """Flush lines to the disk while no event comes. See `Sink.tick`."""
        if self._file is not None:
            self._file.flush_if_due()

    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self._file.close()


def _print(text: str) -> None:
    """Write to standard output without its lock, which a thread that hangs would hold at the end of the process."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        sys.stdout.write(text)
        return
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error
