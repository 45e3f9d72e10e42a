"""Load a compiled plugin into this process, so that TensorRT finds it in its registry.

The library registers its creator when it is loaded; that is all there is to do. It asks for libnvinfer by name,
which is found when TensorRT was imported before, or is installed in the system.

Loading a library is running its code, and a bundle may come from anyone. So no library is ever taken from a bundle:
it says by SHA-256 which one its engine was built with, and what is loaded is the file that this machine's user has
at one place, `plugin_file`, if it is that one. `edgead plugin build` puts it there, so an engine that is built
where it runs finds the library that it was built with. For an engine that is built elsewhere, the user copies the
library of that machine there, and by that says that it is trusted. The hash is no ward against whoever can write to
that place, who runs code as this user anyway; it keeps an engine from running with other kernels than it was judged
with.

A version-compatible engine is another matter: it is opened with NVIDIA's runtime out of it, which is code that runs
on the host, and may as well hold the library. TensorRT loads it from there, into the registry of the runtime that
opens the engine; nothing here does.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path

from edgead.errors import BackendError
from edgead.files.cache import cache_directory

LIBRARY_NAME = "libedgead_plugin.so"


def plugin_file() -> Path:
    """Where this user's plugin lies; whether there is one or not."""
    return cache_directory() / "plugin" / LIBRARY_NAME


def load_plugin_of_engine(sha256: str, rebuild: str) -> None:
    """Load this user's plugin, when it is the one that an engine was built with; see `load_plugin`.

    sha256: of the engine's record. rebuild: the command line that builds the engine anew. Raises BackendError, with
    both ways out, for a plugin that is missing or another one, and what `load_plugin` raises.
    """
    library = plugin_file()
    found = plugin_sha256(library) if library.is_file() else None
    if found != sha256:
        there = f"has {found}" if found else "is not there"
        raise BackendError(
            f"the engine was built with the plugin of SHA-256 {sha256}, and {library} {there}: run "
            f"'edgead plugin build' and rebuild the engine with {rebuild}, or, if you trust the machine that built it, "
            "copy its library there"
        )
    load_plugin(library, sha256)


def plugin_sha256(library: Path) -> str:
    """SHA-256 of a compiled plugin, in hex; BackendError where it cannot be read."""
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError as error:
        raise BackendError(
            f"cannot read the plugin {library}: {error.strerror}; compile it with 'edgead plugin build'"
        ) from error


def load_plugin(library: Path, sha256: str) -> None:
    """Load the plugin at `library`, whose SHA-256 in hex has to be this; it stays for the life of the process.

    Import TensorRT first. Raises BackendError for a library that is missing, changed, or cannot be loaded.
    """
    path = checked_plugin(library, sha256)
    try:
        ctypes.CDLL(path)
    except OSError as error:
        raise BackendError(
            f"cannot load the plugin ({error}): it is for the TensorRT that it was compiled with; "
            "compile it again here with 'edgead plugin build'"
        ) from error


def checked_plugin(library: Path, sha256: str) -> str:
    """The path to load the plugin at `library` by, once its SHA-256 in hex is this; BackendError where it is not."""
    digest = plugin_sha256(library)
    if digest != sha256.lower():
        raise BackendError(
            f"{library} is not the plugin that was compiled (its SHA-256 is {digest}, not {sha256}): "
            "compile it again with 'edgead plugin build'"
        )
    # An absolute one: a bare name would be looked for among the libraries of the system.
    return os.path.abspath(library)
