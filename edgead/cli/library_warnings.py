"""Warnings that libraries give through Python's module `warnings`.

Python prints them as they are, with a line of the library's source below. They may repeat the name of a file or a
header, and a bar on a terminal would be torn. So they become warnings of edgead: one printable line.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from edgead.text import one_line, shortened

_log = logging.getLogger(__name__)


@contextmanager
def library_warnings_as_lines() -> Iterator[None]:
    """Log the warnings of libraries as warnings of edgead while the block runs. See `warnings.showwarning`."""

    def log(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        _log.warning("%s (%s)", shortened(one_line(message)), category.__name__)

    before = warnings.showwarning
    warnings.showwarning = log
    try:
        yield
    finally:
        warnings.showwarning = before
