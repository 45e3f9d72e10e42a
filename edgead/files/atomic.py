"""Atomic writes: write beside the target, then rename.

If the process is killed at any moment, the old content of the target stays whole. Names of partial files start with a
dot and end in ``.partial``. A later write to the same target removes the partial file of a killed one. Several
processes may write one file: each has a partial file of its own, with its PID in the name, and the last to
finish wins.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from edgead.errors import EdgeadError, InputError

# File systems allow names of 255 bytes. This leaves room for a dot, a PID and a suffix, also of a video.
_LONGEST_NAME = 200
_count = count()


def beside(target: Path, suffix: str) -> Path:
    """Return a hidden path beside a file or directory.

    Args:
        target: Path of the file or directory.
        suffix: End of the name, after a dot.

    Returns:
        Absolute path. A long name is replaced by its hash, because there is no room for the suffix.
    """
    # The absolute path, because "." has no name and no parent folder.
    target = Path(os.path.abspath(target))
    name, data = target.name, os.fsencode(target.name)
    if len(data) > _LONGEST_NAME:
        name = hashlib.sha256(data).hexdigest()
    return target.parent / f".{name}.{suffix}"


def _remove_left_behind(target: Path) -> None:
    """Remove the partial files of a target whose processes are gone."""
    start, end = beside(target, "").name, ".partial"
    for file in beside(target, "").parent.iterdir():
        if file.name.startswith(start) and file.name.endswith(end):
            pid, _, number = file.name[len(start) : -len(end)].partition("-")
            if pid.isdecimal() and number.isdecimal() and not _is_running(int(pid)):
                _remove(file)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Translate every OSError of the block into EdgeadError.

    Args:
        target: Path that the block writes, as the message shows it.

    Raises:
        EdgeadError: If the disk is full or the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EdgeadError(
                f"disk full while writing {target}", hint="free some space and run again"
            ) from error
        raise EdgeadError(
            f"cannot write {target}: {error.strerror or error}", hint="check the path and its rights"
        ) from error


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Replace a file atomically.

    Args:
        target: Path of the file. Missing parent folders are made.

    Yields:
        Path of a partial file to write to. If the block succeeds, the file is flushed and renamed to `target`.
        Otherwise it is removed and the old file stays.

    Raises:
        EdgeadError: If the disk is full or the path cannot be written. The message names the target.
    """
    partial = beside(target, f"{os.getpid()}-{next(_count)}.partial")
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(target)
        _remove(partial)
        try:
            yield partial
            _fsync(partial)
            os.replace(partial, target)
            _fsync(target.parent)
        except BaseException:
            _remove(partial)
            raise


def place_file(target: Path, content: bytes, partial: Path) -> None:
    """Write one of many files of a folder that this process has locked: beside the others first, then renamed.

    `replace_file` looks for partial files of killed processes in the folder at each call, which takes too long for
    thousands of files. Here the caller removes those at its start. The rename is not flushed. An error leaves no
    partial file.

    Args:
        target: Path of the file. Missing parent folders are made.
        content: Content of the file.
        partial: Path on the same file system to write to; it must not exist.

    Raises:
        EdgeadError: If the disk is full or the path cannot be written. The message names the target.
    """
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        opened = open(partial, "xb")  # noqa: SIM115 - an existing file is another's, and stays
        try:
            with opened as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        except BaseException:
            _remove(partial)
            raise


@contextmanager
def replace_directory(target: Path) -> Iterator[Path]:
    """Replace a directory atomically.

    A directory cannot be renamed to the name of a directory that holds files. So the old directory is renamed first,
    to a hidden name beside the target. If the process dies between the two renames, `restore_directory` puts the old
    directory back. Every call starts with `restore_directory`.

    Args:
        target: Path of the directory. Missing parent folders are made.

    Yields:
        Path of an empty partial directory to fill. If the block succeeds, its files are flushed and it is renamed to
        `target`. Otherwise it is removed and the old directory stays.

    Raises:
        EdgeadError: If the disk is full or the path cannot be written. The message names the target.
        InputError: If the target is a file or its folder is read-only.
    """
    target = Path(os.path.abspath(target))
    partial, previous = beside(target, "partial"), beside(target, "previous")
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        restore_directory(target)
        check_directory(target)
        _remove(partial)
        partial.mkdir()
        try:
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    _fsync(file)
            if target.exists():
                os.rename(target, previous)
            os.rename(partial, target)
            _fsync(target.parent)
            _remove(previous)
        except BaseException:
            restore_directory(target)
            _remove(partial)
            raise


def check_directory(target: Path) -> None:
    """Check before a long job that a directory can be made or written.

    Args:
        target: Path of the directory; it may be missing.

    Raises:
        InputError: If a file stands in its path, or the folder is read-only. The message names the file or folder.
    """
    place = Path(os.path.abspath(target))
    while not os.path.exists(place):
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place} is a file, not a directory", hint="choose another path")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write {target}: {place} is read-only", hint="choose another path or change its rights"
        )


def check_empty(target: Path, kind: str, *, hidden_too: bool = False) -> None:
    """Check before a long job that a directory holds nothing, if it does not hold an earlier output of the command.

    Args:
        target: Path of the directory; it may be missing.
        kind: Name of the output in the message, such as "bundle".
        hidden_too: Whether the command replaces the whole directory, with all that is hidden in it.

    Raises:
        InputError: The directory holds files. The message names it.
    """
    if target.is_dir() and any(hidden_too or not entry.name.startswith(".") for entry in target.iterdir()):
        raise InputError(f"{target} holds files that are no {kind}", hint="choose an empty or new directory")


def restore_directory(target: Path) -> None:
    """Finish or undo a `replace_directory` whose process was killed.

    Args:
        target: Path of the directory. If it is missing, the previous directory is put back. If it exists, the
            previous directory is removed.
    """
    previous = beside(target, "previous")
    if previous.exists():
        if target.exists():
            _remove(previous)
        else:
            os.rename(previous, target)
