"""Load a compiled plugin into this process, so that TensorRT finds it in its registry.

The library registers its creator when it is loaded. It needs libnvinfer, which the loader finds by name if TensorRT was
imported before or is installed in the system.

Loading a library runs its code, and a bundle may come from anyone. Therefore no library is loaded from a bundle. The
bundle holds the SHA-256 of the library that its engine was built with. The library itself is always the file
`plugin_file` of this machine's user, and it is loaded only if its SHA-256 is the same. `edgead plugin build` writes it
there, so an engine that is built on this machine finds its library. For an engine from another machine, the user copies
that machine's library there, and thereby trusts it. The hash does not protect against anyone who can write to
that place, because they can run code as this user anyway. It prevents an engine from running with kernels other than
those it was verified with.

A version-compatible engine contains NVIDIA's runtime, which is code that runs on the host, and may contain the plugin
too. TensorRT loads both from the engine, and registers the plugin with the runtime that opens the engine. This module
is not involved.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path

from edgead.errors import BackendError
from edgead.files.cache import cache_directory
from edgead.plugin.version import version_from_number, version_text

LIBRARY_NAME = "libedgead_plugin.so"


def plugin_file() -> Path:
    """Return the path of this user's plugin, whether it exists or not."""
    return cache_directory() / "plugin" / LIBRARY_NAME


def load_plugin_of_engine(sha256: str, rebuild: str) -> None:
    """Load this user's plugin if an engine was built with it; see `load_plugin`.

    Args:
        sha256: SHA-256 of the plugin in the engine's record, in lower-case hex.
        rebuild: Command line that rebuilds the engine.

    Raises:
        BackendError: The plugin is missing, has another SHA-256, or cannot be loaded.
    """
    library = plugin_file()
    found = plugin_sha256(library) if library.is_file() else None
    if found != sha256:
        there = f"has {found}" if found else "is not there"
        raise BackendError(
            f"the engine was built with the plugin of SHA-256 {sha256}, and {library} {there}",
            hint=f"run 'edgead plugin build' and rebuild the engine with {rebuild}, or, if you trust the machine that "
            f"built it, copy its library to {library}",
        )
    load_plugin(library, sha256)


def plugin_sha256(library: Path) -> str:
    """Hash a compiled plugin.

    Args:
        library: Path of the library.

    Returns:
        SHA-256 in lower-case hex.

    Raises:
        BackendError: The file cannot be read.
    """
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError as error:
        raise BackendError(
            f"cannot read the plugin {library} ({error.strerror})",
            hint="compile it with 'edgead plugin build'",
        ) from error


def load_plugin(library: Path, sha256: str) -> None:
    """Load a plugin for the rest of the life of the process. Import TensorRT first.

    Args:
        library: Path of the library.
        sha256: Expected SHA-256 of the library, in hex.

    Raises:
        BackendError: The library is missing, has another SHA-256, cannot be loaded, or was compiled with another
            version of TensorRT. Then it has not registered itself.
    """
    path = checked_plugin(library, sha256)
    try:
        loaded = ctypes.CDLL(path)
        headers, tensorrt = (
            version_text(version_from_number(int(ask())))
            for ask in (loaded.edgead_tensorrt_of_headers, loaded.edgead_tensorrt_of_library)
        )
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"cannot load the plugin ({error}), which works only with the TensorRT that it was compiled with",
            hint="compile it again here with 'edgead plugin build'",
        ) from error
    if headers != tensorrt:
        raise BackendError(
            f"{library} was compiled with TensorRT {headers}, and this process has TensorRT {tensorrt}",
            hint="compile it again here with 'edgead plugin build'",
        )


def checked_plugin(library: Path, sha256: str) -> str:
    """Check the SHA-256 of a plugin.

    Args:
        library: Path of the library.
        sha256: Expected SHA-256 of the library, in hex.

    Returns:
        Absolute path of the library.

    Raises:
        BackendError: The library is missing or has another SHA-256.
    """
    digest = plugin_sha256(library)
    if digest != sha256.lower():
        raise BackendError(
            f"{library} is not the plugin that was compiled (its SHA-256 is {digest}, not {sha256})",
            hint="compile it again with 'edgead plugin build'",
        )
    # The loader would search for a bare file name among the libraries of the system.
    return os.path.abspath(library)
