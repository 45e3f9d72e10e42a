"""Load a compiled plugin into this process, so that TensorRT finds it in its registry.

The library registers its creator when it is loaded; that is all there is to do. It asks for libnvinfer by name,
which is found when TensorRT was imported before, or is installed in the system. Loading runs code, so the library
has to be the one that was compiled: its SHA-256 is checked first.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path

from edgead.errors import BackendError


def load_plugin(library: Path, sha256: str) -> None:
    """Load the plugin at `library`, whose SHA-256 in hex has to be this; it stays for the life of the process.

    Import TensorRT first. Raises BackendError for a library that is missing, changed, or cannot be loaded.
    """
    try:
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError as error:
        raise BackendError(
            f"cannot read the plugin {library}: {error.strerror}; compile it with 'edgead plugin build'"
        ) from error
    if digest != sha256.lower():
        raise BackendError(
            f"{library} is not the plugin that was compiled (its SHA-256 is {digest}, not {sha256}): "
            "compile it again with 'edgead plugin build'"
        )
    try:
        # An absolute path: a bare name would be looked for among the libraries of the system.
        ctypes.CDLL(os.path.abspath(library))
    except OSError as error:
        raise BackendError(
            f"cannot load the plugin ({error}): it is for the TensorRT that it was compiled with; "
            "compile it again here with 'edgead plugin build'"
        ) from error
