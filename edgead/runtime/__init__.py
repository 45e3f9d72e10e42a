"""Sessions: an opened model behind one protocol, and the one place that chooses a backend.

The stream and the evaluation know `Session` and nothing of what runs behind it. A backend's library is
imported in that backend's file alone, and that file only when a bundle asks for it. A backend that
cannot open the model is an error: nothing here tries another one in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgead.errors import BundleError, InputError
from edgead.runtime.base import Session
from edgead.runtime.fake import FakeSession
from edgead.types import BACKENDS

if TYPE_CHECKING:
    from edgead.bundle import Bundle

__all__ = ["FakeSession", "Session", "open_session"]


def open_session(bundle: Bundle, *, threads: int | None = None) -> Session:
    """Open the model of a bundle with the backend that it was built for; use the result as a context manager.

    threads: CPU threads of one inference, None for one per core this process may use. Every session is compared with
    the bundle's golden answers first, because it was verified on one machine, which need not be this one. Raises
    InputError for fewer than one thread, or for any with an engine, BundleError when the bundle lacks a file or names
    an unknown backend, BackendError when the backend cannot open it or the model is not of the bundle's size,
    VerificationError when the session does not give the golden answers.
    """
    from edgead.runtime.golden_check import check_golden

    session = _opened(bundle, threads)
    try:
        check_golden(session, bundle, threads)
    except BaseException:
        session.close()
        raise
    return session


def _opened(bundle: Bundle, threads: int | None) -> Session:
    size, backend = bundle.manifest.size, bundle.manifest.backend
    if backend == "onnxruntime":
        from edgead.runtime.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(bundle.file("model.onnx"), threads=threads, size=size)
    if threads is not None:
        raise InputError(f"threads is {threads}, and {bundle.path} runs on a GPU: leave it out")
    if backend in ("tensorrt", "tensorrt-rtx"):
        from edgead.runtime.golden_check import rebuild_command
        from edgead.runtime.tensorrt.engine_record import MAX_RECORD_BYTES, EngineRecord
        from edgead.runtime.tensorrt.session import TensorRTSession

        rebuild = rebuild_command(bundle)
        with open(bundle.file("engine.json"), encoding="utf-8", errors="replace") as file:
            record = EngineRecord.from_json(file.read(MAX_RECORD_BYTES + 1), rebuild)
        return TensorRTSession(bundle.file("model.engine"), record, size, rebuild)
    raise BundleError(
        f"{bundle.path} is for the unknown backend {backend[:80]!r}: this edgead knows {', '.join(BACKENDS)}"
    )
