"""GObject introspection for the tests: the package `gi` of the system's Python, and none of its other packages.

Users have it in an environment that sees the packages of the system. The environment of the tests has its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import sysconfig
import warnings
from pathlib import Path

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
    spec.loader.exec_module(module)


def needs_library(versions: dict[str, str], packages: str) -> pytest.MarkDecorator:
    """Make a mark that skips a test where modules of `gi.repository` are missing.

    Args:
        versions: Version of the interface by name of the module.
        packages: Packages of Debian that have them.
    """
    if importlib.util.find_spec("gi") is None:
        folder, compiled = Path(_PLACE, "gi"), f"_gi{sysconfig.get_config_var('EXT_SUFFIX')}"
        if folder.is_dir() and not (folder / compiled).is_file():
            reason = "gi of the system is for another Python: pip install pygobject"
            return pytest.mark.skipif(True, reason=reason)
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
