"""Standard input, output and error of a command, as far as the caller left them open and able.

A closed descriptor would be given to the next file that is opened, and text for the terminal would get into that file.
Results go to standard output, so an output that cannot be written is an error. Progress, warnings and errors go to
standard error; where that cannot be written, the command works on without them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

STANDARD_OUTPUT = "standard output"
"""Name of standard output in its errors."""


class _LossyFile(io.FileIO):
    """File that drops what cannot be written: its disk is full, its reader or its terminal is gone."""

    def write(self, data: Any) -> int:
        """Write bytes, or drop them. See `io.RawIOBase.write`."""
        with suppress(OSError):
            if (written := super().write(data)) is not None:
                return written
        return len(data)


class _OutputFile(io.FileIO):
    """File whose errors have its name, "standard output"."""

    def write(self, data: Any) -> int:
        """Write bytes. See `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


@contextmanager
def usable_standard_streams() -> Iterator[None]:
    """Make standard input, output and error of this process usable while the block runs.

    A character that the encoding of the terminal lacks is written as a backslash escape. Streams that a program put in
    the place of the process's own, as a test does, are not touched.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_OutputFile(1, "w", closefd=False), before[0])
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_LossyFile(2, "w", closefd=False), before[1])
    try:
        yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def drop_standard_output() -> None:
    """Redirect standard output to the null device, so that no later flush fails."""
    with suppress(OSError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _open_closed() -> None:
    """Open the closed ones of the descriptors 0, 1 and 2 on the null device.

    Standard output is opened for reading, so that results are not lost without an error.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        if _is_open(descriptor):
            continue
        null = os.open(os.devnull, flags)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _is_open(descriptor: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    """Return a text stream on a file, with the encoding and the buffering of the stream before, if there was one."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=raw.fileno() == 2 or getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )
