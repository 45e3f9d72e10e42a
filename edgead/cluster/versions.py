"""Versions that a job depends on. A worker with others would give other results, or none."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from edgead import __version__


def versions_here() -> dict[str, str]:
    """Return the versions of Python, edgead, torch and ONNX Runtime in this process; "none" if one is missing."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "edgead": __version__,
        # Without the build for a GPU, such as +cu126, which may differ between this machine and a worker.
        **{name: _installed(name).partition("+")[0] for name in ("torch", "onnxruntime")},
    }


def difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Describe how the versions of a worker differ from the versions of this machine.

    Args:
        expected: Versions of this machine.
        found: Versions of the worker.

    Returns:
        Description, None if they are equal.
    """
    others = [
        f"{name} {found.get(name, 'none')}, not {value}"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    return ", ".join(others) or None


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
