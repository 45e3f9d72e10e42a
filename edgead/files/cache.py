"""Folder for files of this machine that edgead can make again: timings and kernels of compilers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the cache folder of edgead, which may be missing.

    Source: XDG Base Directory Specification. It ignores a relative path.

    Returns:
        `edgead` in the folder of XDG_CACHE_HOME. If that variable is unset, empty or a relative path, `edgead` in
        ~/.cache.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "edgead"
