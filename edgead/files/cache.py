"""Where edgead keeps what belongs to this machine and can be made again: timings and kernels of compilers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`edgead` below XDG_CACHE_HOME, or ~/.cache where that is unset, empty or, against its specification, relative.

    Source: XDG Base Directory Specification.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "edgead"
