"""Sessions: opened models behind one protocol, and the one place that chooses a backend.

The stream and the evaluation know only `Session`, not the backend behind it. A backend's library is imported only in
the file of that backend, and that file is imported only when a bundle needs it. If a backend cannot open the model,
that is an error: no other backend is tried in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgead.errors import BundleError, InputError
from edgead.files.memory import give_back_freed
from edgead.runtime.base import Session
from edgead.runtime.fake import FakeSession
from edgead.types import BACKENDS

if TYPE_CHECKING:
    from edgead.bundle import Bundle

__all__ = ["FakeSession", "Session", "open_session"]


def open_session(bundle: Bundle, *, threads: int | None = None) -> Session:
    """Open the model of a bundle with the backend that it was built for; use the result as a context manager.

    Every session is first compared with the golden answers of the bundle, because the bundle may have been verified
    on another machine.

    Args:
        bundle: Bundle that holds the model.
        threads: CPU threads of one inference; None for one per core that this process may use.

    Returns:
        The session, which takes batches (N, H, W, 3) uint8 RGB at the size of the bundle.

    Raises:
        InputError: If `threads` is less than 1, or is given for a backend that does not run on the CPU.
        BundleError: If the bundle lacks a file or names an unknown backend.
        BackendError: If the backend cannot open the model, or the model has another size than the bundle.
        VerificationError: If the session does not give the golden answers.

    Example:
        >>> import edgead, numpy
        >>> bundle = edgead.open_bundle("engines/my-parts")
        >>> size = bundle.manifest.size
        >>> with edgead.open_session(bundle) as session:
        ...     prediction = session.infer(numpy.zeros((2, size.height_px, size.width_px, 3), numpy.uint8))
        >>> prediction.anomaly_score.shape
        (2,)
    """
    from edgead.runtime.golden_check import check_golden

    session = _opened(bundle, threads)
    try:
        check_golden(session, bundle, threads)
    except BaseException:
        session.close()
        raise
    # A library frees the copy of the weights that it read, and the stream runs for months.
    give_back_freed()
    return session


def _opened(bundle: Bundle, threads: int | None) -> Session:
    """Open the session of a bundle without the golden check."""
    size, backend = bundle.manifest.size, bundle.manifest.backend
    if backend == "onnxruntime":
        from edgead.runtime.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(
            bundle.graph(), threads, size, name=str(bundle.file("model.onnx")), bounded=True
        )
    if threads is not None and backend != "openvino":
        raise InputError(
            f"threads is {threads}, and {bundle.path} does not run on the CPU ({backend})",
            hint="leave it out",
        )
    if backend in ("openvino", "openvino-gpu", "openvino-npu"):
        from edgead.files.cache import cache_directory
        from edgead.runtime.openvino import OpenVinoSession

        return OpenVinoSession(
            bundle.graph(),
            backend,
            bundle.manifest.precision,
            threads,
            size,
            name=str(bundle.file("model.onnx")),
            cache=cache_directory() / "openvino",
        )
    if backend in ("tensorrt", "tensorrt-rtx"):
        from edgead.runtime.golden_check import rebuild_command
        from edgead.runtime.tensorrt.engine_record import MAX_RECORD_BYTES, EngineRecord
        from edgead.runtime.tensorrt.session import TensorRTSession

        rebuild = rebuild_command(bundle)
        record = EngineRecord.from_json(bundle.read("engine.json", MAX_RECORD_BYTES), rebuild)
        return TensorRTSession(
            bundle.file("model.engine"), record, size, rebuild, read=lambda: bundle.read("model.engine")
        )
    raise BundleError(
        f"{bundle.path} is for the unknown backend {backend[:80]!r}; this edgead knows {', '.join(BACKENDS)}",
        hint="update edgead, or rebuild the bundle with 'edgead build'",
    )
