"""GObject introspection for the tests: the package `gi` of the system's Python, and none of its other packages.

Users have it in an environment that sees the packages of the system. The environment of the tests has its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import warnings

import pytest

from edgead.errors import SourceError
from edgead.streaming.sources.introspection import import_library

_PLACE = "/usr/lib/python3/dist-packages"


def _import_gi() -> None:
    spec = importlib.machinery.PathFinder.find_spec("gi", [_PLACE])
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["gi"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        # It was compiled for another version of Python.
        del sys.modules["gi"]


def needs_library(versions: dict[str, str], packages: str) -> pytest.MarkDecorator:
    """Make a mark that skips a test where modules of `gi.repository` are missing.

    Args:
        versions: Version of the interface by name of the module.
        packages: Packages of Debian that have them.
    """
    if "gi" not in sys.modules:
        _import_gi()
    try:
        with warnings.catch_warnings():
            # PyGObject of Debian 12 imports in a way that Python 3.12 no longer has.
            warnings.simplefilter("ignore", ImportWarning)
            import_library(versions, "", packages)
    except SourceError as error:
        reason = f"{error.what}: apt-get install python3-gi {packages}"
        return pytest.mark.skipif(True, reason=reason)
    return pytest.mark.skipif(False, reason="")
