"""The cache of the kernels that TensorRT for RTX compiles on this machine.

An engine of TensorRT for RTX holds no kernels. They are compiled at first use, which takes seconds. They belong to the
machine and not to the bundle, so they are in the user's cache directory, one file for each engine and kind of GPU. The
library itself checks version, driver and GPU of a cache, and refuses another one. If a cache is missing, refused or
cannot be written, the next start only takes those seconds longer, so that is not an error. A directory that cannot be
written is one warning, because every start is slow there. Kernels are code, so a directory that other users can write
to is neither read nor written.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

from edgead.errors import EdgeadError
from edgead.files.atomic import replace_file
from edgead.files.cache import cache_directory, is_private, private_directory, remove_oldest, report_no_cache

MAX_BYTES = 256 * 2**20
"""Largest size of a cache file. The cache of one engine has some MiB; a larger file is not a cache."""

MAX_FILES = 32
"""Largest number of files in one directory of the cache. The ones that were written first are removed."""

_log = logging.getLogger(__name__)

# Sessions of one engine in several threads share one file.
_writing = threading.Lock()


class KernelCache:
    """The kernels of one engine: read from the cache file, and written when there are more.

    Args:
        cache: IRuntimeCache of TensorRT for RTX. It gets the content of the file.
        file: Path of the cache file, see `cache_file`.
    """

    def __init__(self, cache: Any, file: Path) -> None:
        self._cache, self._file = cache, file
        self._content = read_cache(file)
        if self._content and not cache.deserialize(self._content):
            # The file is for another version, driver or GPU. The kernels compiled now replace it.
            self._content = b""

    def keep(self) -> None:
        """Write the file if the library has other kernels than it holds; see `write_cache`."""
        try:
            content = bytes(memoryview(self._cache.serialize()))
        except Exception as error:
            # No error, as when the file cannot be written: the next start takes some seconds longer.
            _log.info("kernels not kept in %s: %s", self._file, error)
            return
        if content != self._content:
            write_cache(self._file, content)
            self._content = content


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
        Its content; empty if the file is missing, is larger than `MAX_BYTES` or cannot be read, or if other users can
        write to its directory.
    """
    try:
        if not is_private(file.parent):
            _log.info("no kernels from %s: not this user alone can write there", file)
            return b""
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
    """Replace a cache file as a whole, readable only by its owner.

    The first failure in a process is a warning with the directory and the reason. Later ones are logged as information.

    Args:
        file: Path of the file.
        content: New content. More than `MAX_BYTES` are not written, because they would not be read.
    """
    if len(content) > MAX_BYTES:
        _log.info("kernels not kept: %d bytes are more than the limit of %d", len(content), MAX_BYTES)
        return
    try:
        with _writing:
            if private_directory(file.parent) is None:
                return
            with replace_file(file) as partial:
                partial.touch(mode=0o600)
                partial.write_bytes(content)
            remove_oldest(file.parent, f"*{file.suffix}", MAX_FILES)
    except (OSError, EdgeadError) as error:
        report_no_cache(file.parent, str(error))
