"""Sessions: an opened model behind one protocol, and the one place that chooses a backend.

The stream and the evaluation know `Session` and nothing of what runs behind it. A backend's library is
imported in that backend's file alone, and that file only when the backend is asked for. A backend that
cannot open the model is an error: nothing here tries another one in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgead.errors import InputError
from edgead.runtime.base import Session
from edgead.runtime.fake import FakeSession

if TYPE_CHECKING:
    from edgead.bundle import Bundle

__all__ = ["BACKENDS", "FakeSession", "Session", "open_session"]

BACKENDS = ("onnxruntime",)


def open_session(bundle: Bundle, *, backend: str = "onnxruntime", threads: int | None = None) -> Session:
    """Open the model of a bundle with a backend; use the result as a context manager.

    backend: one of `BACKENDS`. threads: CPU threads of one inference, None for one per core this process
    may use. Raises InputError for an unknown backend or fewer than one thread, BundleError when the bundle
    lacks the file the backend needs, BackendError when the backend cannot open it or the model is not of
    the bundle's size.
    """
    if backend == "onnxruntime":
        from edgead.runtime.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(bundle.file("model.onnx"), threads=threads, size=bundle.manifest.size)
    raise InputError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
