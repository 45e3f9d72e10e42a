"""ONNX Runtime on the CPU: the backend that works on every machine, and the reference for all others.

The only file that imports onnxruntime. Its errors leave here as BackendError. The session options are
chosen for a process that streams for months beside a capture thread; each says why below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgead.errors import BackendError, InputError, vendor_errors
from edgead.runtime.base import check_batch, graph_inputs, graph_outputs
from edgead.types import Closing, Float32Array, Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize


class OnnxRuntimeSession(Closing):
    """A `Session` on ONNX Runtime's CPU provider.

    Args:
        model: Path of an ONNX file, or its content.
        threads: CPU threads of one inference, None for one per core that this process may run on.
        size: Image size that the model must take, None for the model's own.

    Raises:
        InputError: If `threads` is less than 1.
        BackendError: If onnxruntime is missing, cannot load the model, or the model is not `images` uint8 (N, H, W, 3)
            -> `anomaly_map` float32 (N, 1, H, W), `anomaly_score` float32 (N,).
    """

    def __init__(
        self, model: Path | bytes, threads: int | None = None, size: ModelSize | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}: give 1 or more")
        self._name = "the model" if isinstance(model, bytes) else str(model)
        self._session: Any = _load(model, self._name, threads or len(os.sched_getaffinity(0)))
        self._height_px, self._width_px = self._check_graph(size)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One input: `images`, uint8, (N, H, W, 3), RGB."""
        return graph_inputs(self._height_px, self._width_px)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """`anomaly_map` float32 (N, 1, H, W) and `anomaly_score` float32 (N,)."""
        return graph_outputs(self._height_px, self._width_px)

    def infer(self, batch: UInt8Array) -> Prediction:
        """Score a batch of (N, H, W, 3) uint8 RGB; raises as `Session.infer` says."""
        if self._session is None:
            raise BackendError(f"the session of {self._name} is closed: open the bundle again")
        check_batch(batch, self._height_px, self._width_px)
        with vendor_errors(f"ONNX Runtime failed on {self._name}", "open the bundle again, or rebuild it"):
            anomaly_map, anomaly_score = self._session.run(
                ["anomaly_map", "anomaly_score"], {"images": batch}
            )
        return Prediction(anomaly_map=anomaly_map, anomaly_score=anomaly_score)

    def close(self) -> None:
        """Release the model's memory and threads."""
        self._session = None

    def _check_graph(self, size: ModelSize | None) -> tuple[int, int]:
        """Height and width of the model, once its inputs and outputs are what every graph has."""
        inputs = [_spec(node) for node in self._session.get_inputs()]
        outputs = [_spec(node) for node in self._session.get_outputs()]
        shape = inputs[0].shape if len(inputs) == 1 else ()
        height_px, width_px = shape[1:3] if len(shape) == 4 else (None, None)
        if height_px is None or width_px is None or inputs[0] != graph_inputs(height_px, width_px)[0]:
            raise BackendError(
                f"{self._name} takes {_text(inputs)}, not images uint8 (N, H, W, 3): "
                "rebuild it with 'edgead build'"
            )
        if sorted(outputs, key=lambda spec: spec.name) != list(graph_outputs(height_px, width_px)):
            raise BackendError(
                f"{self._name} gives {_text(outputs)}, not {_text(graph_outputs(height_px, width_px))}: "
                "rebuild it with 'edgead build'"
            )
        if size is not None and (height_px, width_px) != (size.height_px, size.width_px):
            raise BackendError(
                f"{self._name} takes images of {height_px}x{width_px} where its bundle says "
                f"{size.height_px}x{size.width_px}: rebuild it with 'edgead build'"
            )
        return height_px, width_px


def tensor_values(
    model: bytes, images: UInt8Array, tensors: Sequence[str]
) -> Iterator[dict[str, Float32Array]]:
    """Run images one by one and give the values of tensors inside the graph: what calibration looks at.

    model: content of an ONNX file that has these tensors among its outputs. images: (N, H, W, 3) uint8 RGB.
    tensors: their names; each yielded array is of the tensor's own shape, for one image. Raises BackendError
    as `OnnxRuntimeSession`.
    """
    name = "the model for calibration"
    session = _load(model, name, len(os.sched_getaffinity(0)))
    for image in images:
        with vendor_errors(f"ONNX Runtime failed on {name}", "rebuild it with 'edgead build'"):
            values = session.run(list(tensors), {"images": image[None]})
        yield dict(zip(tensors, values, strict=True))


def library_version() -> str:
    """Version of the installed onnxruntime, by importing it; BackendError when it cannot be imported."""
    return str(_library().__version__)


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"cannot import onnxruntime ({error}): pip install onnxruntime") from error
    return onnxruntime


def _load(model: Path | bytes, name: str, threads: int) -> Any:
    onnxruntime = _library()
    options = onnxruntime.SessionOptions()
    # Errors only: they come as exceptions, and the optimiser's warnings are no business of a line technician.
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # A number given means that threads are not pinned to cores, so they make way for the capture thread.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for work by spinning take the cores that capture and decoding need. Measured on two
    # busy cores, spinning made an inference 1.5 to 2 times as long and cost 1.6 times the CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Q/DQ nodes are computed as they are written. ONNX Runtime would fuse a convolution with its Q/DQ pairs into
    # QLinearConv, and on a CPU with AVX2 and without VNNI the sums of its 8-bit products saturate at 16 bits: scores of
    # good parts doubled. Without the fusion the weights are dequantised once, when the session opens, and not in every
    # run, so an INT8 graph is also a third faster.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    with vendor_errors(f"ONNX Runtime cannot load {name}", "rebuild it with 'edgead build'"):
        # By path, so that the file's content is never in memory twice.
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )


def _spec(node: Any) -> TensorSpec:
    dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}.get(node.type, node.type)
    return TensorSpec(node.name, dtype, tuple(size if isinstance(size, int) else None for size in node.shape))


def _text(specs: list[TensorSpec] | tuple[TensorSpec, ...]) -> str:
    return ", ".join(
        f"{spec.name} {spec.dtype} ({', '.join('N' if size is None else str(size) for size in spec.shape)})"
        for spec in specs
    )
