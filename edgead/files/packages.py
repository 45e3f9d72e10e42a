"""Whether optional packages are installed, asked before work and without importing them."""

from __future__ import annotations

from importlib.util import find_spec

from edgead.errors import MissingExtraError


def require_packages(extra: str, purpose: str, *packages: str) -> None:
    """Refuse a command whose packages are missing.

    Args:
        extra: The extra of edgead that brings them.
        purpose: What needs them, as the message begins.
        packages: Names of modules.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra, purpose)
