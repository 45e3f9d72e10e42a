"""Standard input, output and error of a command, as far as the caller left them open and able.

A closed descriptor would be given to the next file that is opened, and text for the terminal would get into that file.
Results go to standard output, so an output that cannot be written is an error. Progress, warnings and errors go to
standard error; where that cannot be written, the command works on without them.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from typing import Any

from edgead.text import printable

STANDARD_OUTPUT = "standard output"
"""Name of standard output in its errors."""

# Longest wait for a terminal that was stopped, or for a reader that does not read.
_WRITABLE_S = 0.2


class _LossyFile(io.FileIO):
    """File that drops what cannot be written: its disk is full, its reader or its terminal is gone or does not read.

    Args:
        descriptor: Descriptor of the output. A non-blocking one is opened beside it, if the system allows that.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            super().__init__(_unblocked(descriptor), "w")
        except OSError:
            super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any) -> int:
        """Write bytes, or drop them. See `io.RawIOBase.write`."""
        with suppress(OSError):
            if not select([], [self], [], _WRITABLE_S)[1]:
                return len(data)
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
        sys.stdout = _text(_OutputFile(1, "w", closefd=False), before[0], by_line=False)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_LossyFile(2), before[1], by_line=True)
    try:
        yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def print_if_read(text: str) -> None:
    """Print lines to standard output, unless it is a stopped terminal or a pipe that nobody reads.

    Args:
        text: Lines. Characters that control a terminal are escaped.

    Raises:
        OSError: The output cannot be written, for example because its disk is full.
    """
    text = "\n".join(map(printable, text.split("\n")))
    sys.stdout.flush()
    try:
        descriptor = _unblocked(sys.stdout.fileno())
    except OSError:
        # Not an output of the system, or one that cannot be opened again, such as a socket.
        sys.stdout.write(text + "\n")
        return
    data = (text + "\n").encode(sys.stdout.encoding, "backslashreplace")
    try:
        while data and select([], [descriptor], [], _WRITABLE_S)[1]:
            with suppress(BlockingIOError):
                data = data[os.write(descriptor, data) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error
    finally:
        os.close(descriptor)


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


def _unblocked(descriptor: int) -> int:
    """Open a terminal or a pipe again, so that writes do not block; the flags of the given descriptor stay.

    Raises:
        OSError: It is something else, or the system refuses.
    """
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
        raise OSError(errno.EINVAL, "not a terminal and not a pipe")
    return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _is_open(descriptor: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, before: Any, *, by_line: bool) -> io.TextIOWrapper:
    """Return a text stream on a file, with the encoding and the buffering of the stream before, if there was one."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=by_line or getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )
