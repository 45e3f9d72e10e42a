"""Lock of an output: two commands never write to one directory or file at the same time.

The lock is an advisory lock of the system (flock) on a hidden file beside the output. It ends with its process, however
the process ends. A file that a killed process left does not hold the lock: the next command takes it and removes it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgead.errors import InputError
from edgead.files.atomic import beside, write_errors

_log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# The folder above the output is read-only.
_NOT_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS)
_MAX_HOLDER_BYTES = 512
_POLL_S = 0.1

# Descriptors of the locks of this process.
_held: set[int] = set()


def _close_in_child() -> None:
    """Close the locks in a forked process, because a fork that outlives its parent would keep them."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def exclusive(target: Path) -> Iterator[int | None]:
    """Hold the lock of an output while the block runs.

    If the holder is gone, and a process that inherited its descriptor still writes, the function waits for the end of
    that process.

    Args:
        target: Path of the output, a directory or a file. It may be missing, and so may its parent folders.

    Yields:
        Descriptor of the lock. A process that inherits it holds the lock too. None if the file system has no locks,
        which is logged as a warning.

    Raises:
        InputError: If another process holds the lock. The message has its PID.
        EdgeadError: If no file can be made beside the output or in it.
    """
    with write_errors(target):
        made = _make_parents(Path(os.path.realpath(target)).parent)
        try:
            found = _acquire(target)
        except BaseException:
            _remove_empty(made)
            raise
    if found is None:
        yield None
        return
    descriptor, file = found
    owner = os.getpid()
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        # A forked process may leave the block too, and the lock is not its own.
        if os.getpid() == owner:
            with suppress(OSError):
                file.unlink()
            _held.discard(descriptor)
            os.close(descriptor)
            _remove_empty(made)


def _make_parents(folder: Path) -> list[Path]:
    """Make missing folders; return them, the deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders that are still empty, the deepest first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _acquire(target: Path) -> tuple[int, Path] | None:
    """Take the lock of an output; return its descriptor and file, or None if the file system has no locks."""
    waiting = False
    while True:
        descriptor, file = _open(target)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file after it was opened here.
            if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                return descriptor, file
            os.close(descriptor)
        except BlockingIOError:
            holder = _holder(descriptor, target)
            os.close(descriptor)
            if holder is not None:
                raise InputError(
                    f"{target} is in use: {holder} writes to it",
                    hint="wait for its end, or choose another path",
                ) from None
            if not waiting:
                _log.info("waiting for a process that a killed command left writing to %s", target)
            waiting = True
            time.sleep(_POLL_S)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            with suppress(OSError):
                file.unlink()
            _log.warning(
                "the file system of %s has no locks (%s): run no second command that writes to it",
                target,
                error.strerror,
            )
            return None


def _open(target: Path) -> tuple[int, Path]:
    """Open the lock file of an output, and return its descriptor and path."""
    # The real path, because several names may lead to one directory.
    real = Path(os.path.realpath(target))
    file = beside(real, "lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(file, flags, 0o666), file
    except OSError as error:
        if error.errno not in _NOT_BESIDE or not real.is_dir():
            raise
    return os.open(real / ".lock", flags, 0o666), real / ".lock"


def _holder(descriptor: int, target: Path) -> str | None:
    """Describe the process that took a lock; None if it is gone."""
    with write_errors(target):
        words = os.pread(descriptor, _MAX_HOLDER_BYTES, 0).decode(errors="replace").split()
    if len(words) != 2 or not (words[0].isascii() and words[0].isdigit()):
        return "another process"
    pid, host = int(words[0]), words[1]
    if host != socket.gethostname():
        return f"process {pid} on {''.join(c if c.isprintable() else '?' for c in host)}"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return f"process {pid}"
