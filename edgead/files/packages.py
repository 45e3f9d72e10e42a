"""Check that optional packages are installed, before the work and without an import."""

from __future__ import annotations

from importlib.util import find_spec

from edgead.errors import MissingExtraError


def require_packages(extra: str, purpose: str, *packages: str) -> None:
    """Check that packages are installed.

    Args:
        extra: Extra of edgead that installs the packages.
        purpose: Start of the message: the command or function that needs the packages.
        packages: Names of modules.

    Raises:
        MissingExtraError: If a package is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra, purpose)
