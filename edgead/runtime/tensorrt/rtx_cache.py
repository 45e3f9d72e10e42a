"""The cache of the kernels that TensorRT for RTX compiles on this machine.

An engine of TensorRT for RTX holds no kernels. They are compiled at first use, which takes seconds. They belong to the
machine and not to the bundle, so they are in the user's cache directory, one file for each engine and kind of GPU. The
library itself checks version, driver and GPU of a cache, and refuses another one. If a cache is missing, refused or
cannot be written, the next start only takes those seconds longer, so that is not an error.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

from edgead.errors import EdgeadError
from edgead.files.atomic import replace_file
from edgead.files.cache import cache_directory

MAX_BYTES = 256 * 2**20
"""Largest size of a cache file. The cache of one engine has some MiB; a larger file is not a cache."""

_log = logging.getLogger(__name__)

# Sessions of one engine in several threads share one file.
_writing = threading.Lock()


def cache_file(engine: bytes, compute_capability: tuple[int, int]) -> Path:
    """Return the path of the cache of an engine.

    Args:
        engine: Content of the engine file.
        compute_capability: Compute capability of the GPU (major, minor).

    Returns:
        Path of the file, which may not exist yet.
    """
    major, minor = compute_capability
    return cache_directory() / "tensorrt_rtx" / f"{hashlib.sha256(engine).hexdigest()}-sm{major}{minor}.cache"


def read_cache(file: Path) -> bytes:
    """Read a cache file.

    Args:
        file: Path of the file.

    Returns:
        Its content; empty if the file is missing, is larger than `MAX_BYTES` or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            _log.info("no kernels from %s: %s", file, error)
        return b""
    if len(content) > MAX_BYTES:
        _log.info("no kernels from %s: it is larger than %d bytes", file, MAX_BYTES)
        return b""
    return content


def write_cache(file: Path, content: bytes) -> None:
    """Replace a cache file as a whole, readable only by its owner; if that fails, the reason is logged.

    Args:
        file: Path of the file.
        content: New content.
    """
    try:
        with _writing:
            # Kernels are code, so other users must not be able to add any.
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replace_file(file) as partial:
                partial.touch(mode=0o600)
                partial.write_bytes(content)
    except (OSError, EdgeadError) as error:
        _log.info("kernels not kept: %s", error)
