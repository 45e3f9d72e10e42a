"""Versions of TensorRT: of its headers and of its library, which must be equal where a plugin is concerned.

A plugin calls TensorRT through tables of functions that only the headers describe, and their order changes even
between patch releases. TensorRT 8.6.1 reordered the registry of plugins of 8.6.0: a plugin of one in the other ends the
process.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TypeAlias

from edgead.errors import BackendError

Version: TypeAlias = tuple[int, int, int]
"""Major, minor and patch number of TensorRT."""

OLDEST: Version = (8, 6, 1)
"""Oldest TensorRT for plugins. Its headers are public, those of 8.6.0 have another registry of plugins."""


def version_text(version: Version) -> str:
    """Format a version, such as 10.3.0."""
    return ".".join(map(str, version))


def version_from_number(number: int) -> Version:
    """Split the number that `getInferLibVersion` returns.

    Source: NV_TENSORRT_VERSION in NvInferRuntimeBase.h of TensorRT 8.6 (8601 is 8.6.1) and in NvInferVersion.h of 10
    and newer (100300 is 10.3.0).

    Args:
        number: Version as one number.

    Returns:
        Major, minor and patch number.
    """
    if number >= 100_000:
        return number // 10_000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def headers_version(include: Path) -> Version:
    """Read the version of TensorRT from its headers.

    Args:
        include: Directory of NvInferVersion.h.

    Returns:
        Major, minor and patch number.

    Raises:
        BackendError: The headers do not define a version.
    """
    text = (include / "NvInferVersion.h").read_text(encoding="utf-8", errors="replace")
    # The value is a number, or in newer versions the name of another macro, which is a number.
    macros: dict[str, str] = dict(re.findall(r"^#define\s+(\w+)\s+(\w+)", text, flags=re.MULTILINE))
    named = (macros.get(f"NV_TENSORRT_{part}", "") for part in ("MAJOR", "MINOR", "PATCH"))
    major, minor, patch = (macros.get(name, name) for name in named)
    if not (major.isdecimal() and minor.isdecimal() and patch.isdecimal()):
        raise BackendError(
            f"{include / 'NvInferVersion.h'} names no version of TensorRT",
            hint="give another directory with --tensorrt-include DIR",
        )
    return int(major), int(minor), int(patch)


def library_version(library: Path) -> Version:
    """Ask libnvinfer for its version, which loads it into this process.

    Args:
        library: Path of libnvinfer.

    Returns:
        Major, minor and patch number.

    Raises:
        BackendError: The library cannot be loaded, or is not libnvinfer.
    """
    try:
        return version_from_number(int(ctypes.CDLL(str(library)).getInferLibVersion()))
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"{library} does not tell its version ({error})", hint="install TensorRT again"
        ) from error


def check_headers(include: Path) -> Version:
    """Read the version of the headers, and check that plugins can be compiled with it.

    Args:
        include: Directory of NvInferVersion.h.

    Returns:
        Major, minor and patch number.

    Raises:
        BackendError: The headers do not define a version, or it is older than `OLDEST`.
    """
    version = headers_version(include)
    if version < OLDEST:
        raise BackendError(
            f"the headers in {include} have version {version_text(version)}, and the plugin needs TensorRT "
            f"{version_text(OLDEST)} or newer (TensorRT-RTX, which counts from 1, has no plugins)",
            hint="give other headers with --tensorrt-include DIR",
        )
    return version


def check_library(library: Path, headers: Version) -> None:
    """Check that libnvinfer has the version of the headers.

    Args:
        library: Path of libnvinfer.
        headers: Version of the headers.

    Raises:
        BackendError: The versions differ, or the library does not tell its version.
    """
    version = library_version(library)
    if version < OLDEST:
        raise BackendError(
            f"{library} is TensorRT {version_text(version)}, and the plugin needs {version_text(OLDEST)} or newer",
            hint="update TensorRT, or build engines with --head standard, which needs no plugin",
        )
    if version != headers:
        raise BackendError(
            f"the headers are of TensorRT {version_text(headers)}, and {library} is {version_text(version)}",
            hint=f"give the headers of {version_text(version)} with --tensorrt-include DIR",
        )
