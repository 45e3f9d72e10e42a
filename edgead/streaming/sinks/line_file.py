"""A file of lines that another program reads, deletes or rotates while this one writes."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass

from edgead.errors import SinkError

KEEP_FILES = 5
FSYNC_S = 1.0
# Longer than the longest line, because `edgead.imaging.regions` limits the number of regions and corners.
_TAIL_BYTES = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinePolicy:
    """How long lines stay, and when they are safe from a power cut.

    Attributes:
        max_bytes: Size above which a file is renamed to ``FILE.1`` and a new one begins; None for one file without
            limit.
        keep: Number of renamed files that stay: ``FILE.1`` is the newest.
        fsync_s: Longest time in seconds before a line is flushed to the disk; 0 flushes every line before the next.
    """

    max_bytes: int | None = None
    keep: int = KEEP_FILES
    fsync_s: float = FSYNC_S


class LineFile:
    """A file to which whole lines are appended, each by one system call.

    Lines that the file already has stay, except a last line that a power cut left unfinished. If the file was
    deleted, or another one took its name, the next line goes to a new file of that name.

    Args:
        path: File to append to. Also a device or a named pipe, which are neither rotated nor flushed.
        policy: Rotation and flushing.

    Raises:
        SinkError: The file cannot be opened, or its content is not lines.
    """

    def __init__(self, path: str, policy: LinePolicy) -> None:
        self._path, self._policy = path, policy
        self._file: int | None = None
        self._is_closed = self._is_regular = False
        self._identity = 0, 0
        # Time of the oldest line that is not flushed.
        self._dirty_since_s: float | None = None
        self._open()

    def append(self, line: bytes) -> None:
        """Append one line; on a full disk, remove the part of it that was written.

        Args:
            line: Bytes with the newline at the end.

        Raises:
            SinkError: The line cannot be written, or the file is closed. Nothing of it is in the file.
        """
        if self._is_closed:
            raise SinkError(f"{self._path} is closed", hint="open the sink again")
        try:
            # Earlier lines are flushed first: if the disk refuses, nothing of this line is in the file.
            self._flush_if_due()
            self._reopen_if_needed(len(line))
            assert self._file is not None
            self._write(self._file, line)
            if self._dirty_since_s is None:
                self._dirty_since_s = time.monotonic()
        except OSError as error:
            raise self._error(error) from error

    def flush_if_due(self) -> None:
        """Flush the file to the disk if the policy asks for it.

        Raises:
            SinkError: The disk refuses.
        """
        try:
            self._flush_if_due()
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Flush and close the file; may be called twice.

        Raises:
            SinkError: The disk refuses.
        """
        self._is_closed = True
        try:
            self._let_go()
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> SinkError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and self._is_regular:
            return SinkError(f"disk full while writing {self._path}", hint="free some space and run again")
        return SinkError(
            f"cannot write {self._path} ({error.strerror})", hint="check the path, its rights and the disk"
        )

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            opened = os.fstat(self._file)
            self._identity = opened.st_dev, opened.st_ino
            self._is_regular = stat.S_ISREG(opened.st_mode)
            if self._is_regular:
                self._cut_unfinished_line(self._file)
                if not opened.st_size:
                    _fsync_folder(self._path)
        except OSError as error:
            self._let_go()
            raise SinkError(
                f"cannot write {self._path} ({error.strerror})", hint="check the path and its rights"
            ) from error
        except SinkError:
            self._let_go()
            raise

    def _reopen_if_needed(self, n_bytes: int) -> None:
        """Rotate a file that would get too large; open the file again if its name stands for another one."""
        if self._file is not None:
            try:
                named = os.stat(self._path)
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_dev, named.st_ino) == self._identity:
                limit = self._policy.max_bytes
                if (
                    limit is None
                    or not self._is_regular
                    or not named.st_size
                    or named.st_size + n_bytes <= limit
                ):
                    return
                self._rotate()
            else:
                _log.warning("%s was removed or renamed; a new file begins", self._path)
            self._let_go()
        self._open()

    def _rotate(self) -> None:
        """Rename the file to FILE.1, FILE.1 to FILE.2, and so on; the last one is replaced."""
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, self._policy.keep + 1))]
        for old, new in reversed(list(itertools.pairwise(names))):
            with suppress(FileNotFoundError):
                os.replace(old, new)

    def _write(self, file: int, line: bytes) -> None:
        written = os.write(file, line)
        while written < len(line) and not self._is_regular:
            # A signal interrupted the write to a pipe.
            written += os.write(file, line[written:])
        if written < len(line):
            # The disk is full. The part that was written must not stay as half a line.
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _flush_if_due(self) -> None:
        since_s = self._dirty_since_s
        if since_s is not None and time.monotonic() - since_s >= self._policy.fsync_s:
            self._flush()

    def _flush(self) -> None:
        if self._file is not None and self._is_regular and self._dirty_since_s is not None:
            os.fdatasync(self._file)
        self._dirty_since_s = None

    def _let_go(self) -> None:
        """Flush and close the descriptor."""
        try:
            self._flush()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _cut_unfinished_line(self, file: int) -> None:
        """Remove an unfinished last line; raise SinkError if the file does not hold lines."""
        size = os.fstat(file).st_size
        tail = os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        unfinished = len(tail) - (tail.rfind(b"\n") + 1)
        if unfinished == size == 0:
            return
        # A file of another kind must not be cut. Only the unfinished line of a power cut may have zeros.
        if unfinished == len(tail) or b"\0" in tail[: len(tail) - unfinished]:
            raise SinkError(f"{self._path} does not hold lines", hint="choose another file")
        if unfinished:
            os.ftruncate(file, size - unfinished)
            _log.warning("%s: removed the unfinished last line of an interrupted run", self._path)


def _fsync_folder(path: str) -> None:
    """Flush the name of a new file to the disk, where the folder can be read and the file system can do it."""
    with suppress(OSError):
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
