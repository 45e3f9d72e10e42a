"""Folders outside the output: the cache, for files that edgead can make again, and temporary directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgead.errors import EdgeadError

# Home of a user who has none, after the convention of Debian. Nothing is found there, and nothing can be written.
_NO_HOME = Path("/nonexistent")


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
