"""Warnings of Pillow as errors, also while several threads decode.

Python's warning filters belong to the process, and `warnings.catch_warnings` puts back what it found. Two threads at
once would put back each other's filters, and the last of them would stay.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_filters = threading.Lock()


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Raise each warning of Pillow in the block as an exception. One thread at a time is in the block."""
    with _filters, warnings.catch_warnings():
        # Of Pillow only, because other threads may cause other warnings meanwhile.
        warnings.filterwarnings("error", module=r"PIL\.")
        yield
