"""ONNX Runtime on the CPU: the backend that works on every machine, and the reference for all others.

This is the only file that imports onnxruntime. It translates errors of the library into BackendError. The session
options are chosen for a process that streams for months beside a capture thread; a comment at each gives the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgead.errors import BackendError, InputError, vendor_errors
from edgead.runtime.base import (
    REBUILD_MODEL,
    SizedSession,
    check_batch,
    checked_size,
    memory_limit_bytes,
)
from edgead.types import Float32Array, Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize


# How long a thread spins while it waits for the next operator.
_SPIN_US = 50


class OnnxRuntimeSession(SizedSession):
    """A `Session` on ONNX Runtime's CPU provider.

    Args:
        model: Path of an ONNX file, or its content.
        threads: CPU threads of one inference; None for one per core that this process may use.
        size: Image size that the model must take; None for any size.
        name: Name of the model in messages; None for its path.
        bounded: Whether the model is untrusted, so that all such sessions of the process together get at most
            `MEMORY_SHARE` of the machine's memory.

    Raises:
        InputError: If `threads` is less than 1.
        BackendError: If onnxruntime is missing or cannot load the model, or the model is not `images` uint8
            (N, H, W, 3) -> `anomaly_map` float32 (N, 1, H, W), `anomaly_score` float32 (N,).
    """

    def __init__(
        self,
        model: Path | bytes,
        threads: int | None = None,
        size: ModelSize | None = None,
        name: str | None = None,
        bounded: bool = False,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}", hint="give 1 or more")
        self._name = name or ("the model" if isinstance(model, bytes) else str(model))
        self._session: Any = _load(model, self._name, threads or len(os.sched_getaffinity(0)), bounded)
        self._height_px, self._width_px = checked_size(
            [_spec(node) for node in self._session.get_inputs()],
            [_spec(node) for node in self._session.get_outputs()],
            self._name,
            size,
        )

    def infer(self, batch: UInt8Array) -> Prediction:
        """See `Session.infer`."""
        if self._session is None:
            raise BackendError(f"the session of {self._name} is closed", hint="open the bundle again")
        check_batch(batch, self._height_px, self._width_px)
        with vendor_errors(f"ONNX Runtime failed on {self._name}", "open the bundle again, or rebuild it"):
            anomaly_map, anomaly_score = self._session.run(
                ["anomaly_map", "anomaly_score"], {"images": batch}
            )
        return Prediction(anomaly_map=anomaly_map, anomaly_score=anomaly_score)

    def close(self) -> None:
        """Release the memory and the threads of the model; may be called twice."""
        self._session = None


def tensor_values(
    model: bytes, images: UInt8Array, tensors: Sequence[str]
) -> Iterator[dict[str, Float32Array]]:
    """Run images one by one and yield the values of tensors inside the graph, for calibration.

    Args:
        model: Content of an ONNX file that has the tensors among its outputs.
        images: (N, H, W, 3) uint8 RGB at the model's size.
        tensors: Names of the tensors.

    Yields:
        For each image the values of the tensors by name, each of the tensor's own shape for one image.

    Raises:
        BackendError: If onnxruntime is missing, cannot load the model, or fails.
    """
    values_of = tensor_function(model, tensors)
    for image in images:
        yield values_of({"images": image[None]})


def tensor_function(
    model: bytes, tensors: Sequence[str]
) -> Callable[[Mapping[str, UInt8Array | Float32Array]], dict[str, Float32Array]]:
    """Load a model and return a function from its inputs to tensors inside the graph, for calibration.

    Args:
        model: Content of an ONNX file that has the tensors among its outputs.
        tensors: Names of the tensors.

    Returns:
        Function from the inputs by name to the values of the tensors by name. It raises BackendError if ONNX Runtime
        fails.

    Raises:
        BackendError: If onnxruntime is missing or cannot load the model.
    """
    name = "the model for calibration"
    session = _load(model, name, len(os.sched_getaffinity(0)))

    def values_of(inputs: Mapping[str, UInt8Array | Float32Array]) -> dict[str, Float32Array]:
        with vendor_errors(f"ONNX Runtime failed on {name}", REBUILD_MODEL):
            values = session.run(list(tensors), dict(inputs))
        return dict(zip(tensors, values, strict=True))

    return values_of


def library_version() -> str:
    """Return the version of the installed onnxruntime, by importing it.

    Returns:
        The version, such as "1.20.1".

    Raises:
        BackendError: If onnxruntime cannot be imported.
    """
    return str(_library().__version__)


def _library() -> Any:
    """Import onnxruntime; BackendError if that fails."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"cannot import onnxruntime ({error})", hint="pip install onnxruntime") from error
    return onnxruntime


@cache
def _limit_memory() -> None:
    """Register the allocator that bounded sessions share; ONNX Runtime takes one for each process."""
    onnxruntime = _library()
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limits = onnxruntime.OrtArenaCfg({"max_mem": memory_limit_bytes()})
    onnxruntime.create_and_register_allocator(memory, limits)


def _load(model: Path | bytes, name: str, threads: int, bounded: bool = False) -> Any:
    """Load a model with the session options of edgead; `name` is for messages."""
    onnxruntime = _library()
    options = onnxruntime.SessionOptions()
    # Nothing. Errors are raised as exceptions, and the library would print them a second time, in colour and with
    # whatever bytes the graph contains. The warnings of the optimiser do not help a user.
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # With an explicit number ONNX Runtime does not pin its threads to cores, so the capture thread can run.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that waits for work spins before it sleeps, by default for tens of milliseconds, and takes the cores that
    # capture and decoding need. Long enough for the next operator is enough (benchmarks/results/speed.md).
    if _knows_spin_duration(onnxruntime.__version__):
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Compute Q/DQ nodes as they are written. By default ONNX Runtime fuses a convolution with its Q/DQ pairs into
    # QLinearConv. On a CPU with AVX2 and without VNNI the sums of its 8-bit products saturate at 16 bits: scores of
    # good parts doubled. Without the fusion the weights are dequantised once, when the session opens, and not in every
    # run, so an INT8 graph is also a third faster.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if bounded:
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    with vendor_errors(f"ONNX Runtime cannot load {name}", REBUILD_MODEL):
        # By path, so that the content of the file is never in memory twice. The library takes Unicode paths only.
        if isinstance(model, Path) and not str(model).isprintable():
            model = model.read_bytes()
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    # The library keeps the content of the file to open it again with other providers, which edgead does not do. Without
    # this line a session has the weights in memory twice.
    session._model_bytes = None
    return session


def _knows_spin_duration(version: str) -> bool:
    """Return whether a version of ONNX Runtime, such as "1.26.0", can limit the spinning; others ignore the option."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (1, 26)


def _spec(node: Any) -> TensorSpec:
    """Translate ONNX Runtime's description of an input or output; a free length is None."""
    dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}.get(node.type, node.type)
    return TensorSpec(node.name, dtype, tuple(size if isinstance(size, int) else None for size in node.shape))
