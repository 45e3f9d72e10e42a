"""Write beside, then rename: a kill at any moment leaves what was on disk before whole.

Partial names start with a dot and end in ``.partial``; a later write to the same target removes what a killed one left.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgead.errors import EdgeadError, InputError


def _beside(target: Path, suffix: str) -> Path:
    # The whole path, because "." has no name and nothing beside it.
    target = Path(os.path.abspath(target))
    return target.parent / f".{target.name}.{suffix}"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Translate an OSError met while writing `target` into one line that names the path and the hint."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EdgeadError(f"disk full while writing {target}: free some space and run again") from error
        raise EdgeadError(
            f"cannot write {target}: {error.strerror or error}; check the path and its rights"
        ) from error


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; on success it is flushed and renamed over `target`.

    Raises EdgeadError, naming the target, when the disk is full or the place is not writable.
    """
    partial = _beside(target, "partial")
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        try:
            yield partial
            _fsync(partial)
            os.replace(partial, target)
            _fsync(target.parent)
        except BaseException:
            _remove(partial)
            raise


@contextmanager
def replace_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory beside `target` to fill; on success it takes the place of `target`.

    A directory cannot be renamed over a full one, so the old one steps aside for the moment between two renames; if the
    process dies just there, the old directory is put back by `restore_directory`, which every call begins with.

    Raises EdgeadError, naming the target, when the disk is full or the place is not writable, InputError when it is a
    file.
    """
    target = Path(os.path.abspath(target))
    partial, previous = _beside(target, "partial"), _beside(target, "previous")
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
    """Refuse, before a long job and not after it, a directory that could not be made or written.

    Raises InputError that names what is in the way: a file, or a folder without the right to write.
    """
    place = Path(os.path.abspath(target))
    while not os.path.exists(place):
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place} is a file where a directory is to be written: choose another path")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write {target}: {place} is read-only; choose another path or change its rights"
        )


def restore_directory(target: Path) -> None:
    """Finish or undo what a killed `replace_directory` left: put the previous directory back, or remove it."""
    previous = _beside(target, "previous")
    if previous.exists():
        if target.exists():
            _remove(previous)
        else:
            os.rename(previous, target)
