"""Import of the system's libraries that have a Python binding through GObject introspection: GStreamer and Aravis.

Their versions must fit the drivers and plug-ins of the machine, so the packages of its distribution are used.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edgead.errors import SourceError


def import_library(versions: Mapping[str, str], library: str, packages: str) -> tuple[Any, ...]:
    """Import modules of `gi.repository`.

    Args:
        versions: Version of the interface by name of the module, such as ``{"Gst": "1.0"}``.
        library: Name of the library, for the error.
        packages: Packages of Debian and Ubuntu that have the modules.

    Returns:
        The modules, in the order of `versions`.

    Raises:
        SourceError: A module, or the binding, is not installed or cannot be imported by this Python.
    """
    # GStreamer loads libunwind for all libraries of the process. Its functions would replace those of libgcc, and every
    # C++ exception of a library that is loaded later, such as an inference library, would end the process.
    with suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    try:
        import gi

        # All versions come before the first import, which loads the modules that it needs.
        for name, version in versions.items():
            gi.require_version(name, version)
        return tuple(importlib.import_module(f"gi.repository.{name}") for name in versions)
    except (ImportError, ValueError) as error:
        raise SourceError(
            f"this source needs {library} with its Python binding ({error})", hint=install_hint(packages)
        ) from error


def is_installed(versions: Mapping[str, str]) -> bool:
    """Return whether this Python finds modules of `gi.repository`; they are not imported.

    Args:
        versions: Version of the interface by name of the module.
    """
    try:
        import gi

        for name, version in versions.items():
            gi.require_version(name, version)
    except (ImportError, ValueError):
        return False
    return True


def install_hint(packages: str) -> str:
    """Return how to install a library.

    Args:
        packages: Packages of Debian and Ubuntu that have its modules.
    """
    return (
        f"sudo apt-get install python3-gi {packages}, and use an environment that "
        "/usr/bin/python3 -m venv --system-site-packages has made"
    )
