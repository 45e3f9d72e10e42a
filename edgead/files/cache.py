"""Folders outside the output: the cache, for files that edgead can make again, and temporary directories."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from edgead.errors import EdgeadError

# Home of a user who has none, after the convention of Debian. Nothing is found there, and nothing can be written.
_NO_HOME = Path("/nonexistent")

_log = logging.getLogger(__name__)

# Folders whose trouble is reported already.
_reported: set[Path] = set()


def cache_directory() -> Path:
    """Return the cache folder of edgead, which may be missing or read-only.

    Source: XDG Base Directory Specification. It ignores a relative path.

    Returns:
        `edgead` in the folder of XDG_CACHE_HOME. If that variable is unset, empty or a relative path, `edgead` in
        ~/.cache. If the user has no home, as in a container that runs as any user ID, a folder that does not exist.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not home.is_absolute():
        user = Path(os.path.expanduser("~"))
        home = (user if user.is_absolute() else _NO_HOME) / ".cache"
    return home / "edgead"


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Make a directory for the time of the block.

    Yields:
        Path of the empty directory.

    Raises:
        EdgeadError: If neither TMPDIR nor any usual place for temporary files can be written.
    """
    try:
        directory = TemporaryDirectory(prefix="edgead-")
    except OSError as error:
        raise EdgeadError(
            f"cannot make a temporary directory ({error.strerror})",
            hint="set TMPDIR to a directory that can be written",
        ) from error
    with directory as name:
        yield Path(name)


def private_directory(path: Path) -> Path | None:
    """Make a folder of the cache that only this user can write to, for files that a library runs or trusts.

    Args:
        path: Path of the folder.

    Returns:
        The path; None, with a report, if the folder cannot be written, belongs to another user, or others can write
        to it. The caller then works without a cache.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_usable = is_private(path) and os.access(path, os.W_OK)
    except OSError as error:
        report_no_cache(path, str(error.strerror))
        return None
    if not is_usable:
        report_no_cache(path, "not this user alone can write to it: remove it")
        return None
    return path


def is_private(path: Path) -> bool:
    """Return whether a folder belongs to this user, and no other can write to it.

    Args:
        path: Path of the folder.

    Raises:
        OSError: The folder is missing.
    """
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def report_no_cache(path: Path, reason: str) -> None:
    """Report that a folder of the cache is not used: the first time as a warning, then as information.

    Args:
        path: Path of the folder.
        reason: Reason, without a full stop.
    """
    level = logging.INFO if path in _reported else logging.WARNING
    _reported.add(path)
    _log.log(level, "no cache in %s (%s), so each start takes longer", path, reason)


def remove_oldest(directory: Path, pattern: str, keep: int) -> None:
    """Remove the files of a cache that were written first.

    Args:
        directory: Folder of the cache.
        pattern: Pattern of the names of its files, such as "*.blob".
        keep: Largest number of files to keep.
    """
    # Another process may remove them at the same time.
    with suppress(OSError):
        files = [path for path in directory.glob(pattern) if path.is_file()]
        files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in files[keep:]:
            path.unlink(missing_ok=True)
