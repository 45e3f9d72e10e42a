"""Where the kernels that TensorRT for RTX compiles on this machine are kept, so that the next start finds them.

An RTX engine holds no kernels: they are compiled at first use, which takes seconds. They belong to the machine, not
to the bundle, so they lie in the user's cache directory, a file for each engine and kind of GPU. The library itself
checks that a cache is of its version, driver and GPU, and refuses another one. A cache that is missing, refused or
cannot be written costs the next start those seconds and nothing else, so none of it is an error.
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
"""A cache of one engine is some MiB. What is larger is not one."""

_log = logging.getLogger(__name__)

# Sessions of one engine in several threads have one file.
_writing = threading.Lock()


def cache_file(engine: bytes, compute_capability: tuple[int, int]) -> Path:
    """The file for the content of an engine on GPUs of this compute capability (major, minor)."""
    major, minor = compute_capability
    return cache_directory() / "tensorrt_rtx" / f"{hashlib.sha256(engine).hexdigest()}-sm{major}{minor}.cache"


def read_cache(file: Path) -> bytes:
    """Content of a cache file; nothing when there is none, it is larger than `MAX_BYTES` or cannot be read."""
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
    """Replace a cache file whole, readable by its owner alone; where that cannot be done the log says why."""
    try:
        with _writing:
            # Kernels are code: nobody else shall put some here.
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replace_file(file) as partial:
                partial.touch(mode=0o600)
                partial.write_bytes(content)
    except (OSError, EdgeadError) as error:
        _log.info("kernels not kept: %s", error)
