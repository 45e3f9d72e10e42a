"""OpenVINO on an Intel PC: the processor, its integrated GPU or its NPU, each by its own backend name.

This is the only file that imports openvino. A device is never chosen by OpenVINO itself (`AUTO`), because answers
change with the device. Every option that may change an answer is set: on processors with bfloat16 or AMX the library
computes float32 graphs in bfloat16 otherwise.

Images are scored one by one. The shapes of the graph are then fixed, so the memory that it takes is known before it is
compiled, an NPU can run it, and an image has the same numbers in every batch.
"""

from __future__ import annotations

import io
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgead.errors import BackendError, InputError, vendor_errors
from edgead.files.cache import private_directory, remove_oldest
from edgead.runtime.base import (
    REBUILD_MODEL,
    SizedSession,
    check_batch,
    checked_size,
    memory_limit_bytes,
)
from edgead.types import Prediction, TensorSpec, UInt8Array

if TYPE_CHECKING:
    from edgead.imaging.preprocess import ModelSize

_DEVICES: Mapping[str, str] = {
    "openvino": "CPU",
    "openvino-gpu": "GPU",
    "openvino-npu": "NPU",
}
OPENVINO_BACKENDS = tuple(_DEVICES)
"""Backends of this file, each for one device."""

MAX_FILES = 32
"""Largest number of compiled models in the cache. The ones that were written first are removed."""

_DRIVERS: Mapping[str, str] = {
    "openvino": "use the backend onnxruntime",
    "openvino-gpu": "install Intel's GPU driver (intel-opencl-icd), or use the target intel",
    "openvino-npu": "install Intel's NPU driver (linux-npu-driver), or use the target intel",
}

_log = logging.getLogger(__name__)


class OpenVinoSession(SizedSession):
    """A `Session` on OpenVINO.

    Args:
        model: Content of an ONNX file.
        backend: Backend of the device, one of `OPENVINO_BACKENDS`.
        precision: Precision of the graph, one of `edgead.engine.fidelity.PRECISIONS`.
        threads: CPU threads of one inference, for the backend `openvino`; None for one per core that this process may
            use.
        size: Image size that the model must take; None for any size.
        name: Name of the model in messages.
        cache: Directory for compiled models, which makes the next start faster; None for none.

    Raises:
        InputError: If `threads` is less than 1.
        BackendError: If openvino or the device is missing or cannot load the model, the model is not `images` uint8
            (N, H, W, 3) -> `anomaly_map` float32 (N, 1, H, W), `anomaly_score` float32 (N,), or it needs more memory
            than `edgead.runtime.base.MEMORY_SHARE` of the machine's.
    """

    def __init__(
        self,
        model: bytes,
        backend: str = "openvino",
        precision: str = "fp32",
        threads: int | None = None,
        size: ModelSize | None = None,
        name: str = "the model",
        cache: Path | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}", hint="give 1 or more")
        self._name = name
        with _own_thread() as thread:
            self._request, self._height_px, self._width_px = thread.submit(
                _load, model, backend, precision, threads, size, name, cache
            ).result()
        # A request of OpenVINO serves one thread at a time.
        self._serving = threading.Lock()

    def infer(self, batch: UInt8Array) -> Prediction:
        """See `Session.infer`."""
        check_batch(batch, self._height_px, self._width_px)
        maps = np.empty((len(batch), 1, self._height_px, self._width_px), np.float32)
        scores = np.empty(len(batch), np.float32)
        with self._serving:
            if self._request is None:
                raise BackendError(f"the session of {self._name} is closed", hint="open the bundle again")
            with vendor_errors(f"OpenVINO failed on {self._name}", "open the bundle again, or rebuild it"):
                for number in range(len(batch)):
                    found = self._request.infer({"images": batch[number : number + 1]})
                    maps[number] = found["anomaly_map"][0]
                    scores[number] = found["anomaly_score"][0]
        return Prediction(anomaly_map=maps, anomaly_score=scores)

    def close(self) -> None:
        """Release the memory and the threads of the model; may be called twice."""
        with self._serving:
            last = [self._request]
            self._request = None
            with _own_thread() as thread:
                thread.submit(last.clear)


def _own_thread() -> ThreadPoolExecutor:
    """Make a thread for the calls that load and release a model; it ends with its block.

    OpenVINO gives a thread that loads a model a signal stack in the memory of the model, and puts the stack before it
    back with the end of the model. With several models that one may be gone, and the next signal ends the process.
    """
    return ThreadPoolExecutor(1, "edgead-openvino")


def _load(
    model: bytes,
    backend: str,
    precision: str,
    threads: int | None,
    size: ModelSize | None,
    name: str,
    cache: Path | None,
) -> tuple[Any, int, int]:
    """Return a request of a compiled model, and its height and width in pixels. See `OpenVinoSession`."""
    core = _core(backend)
    with vendor_errors(f"OpenVINO cannot read {name}", REBUILD_MODEL):
        graph = core.read_model(io.BytesIO(model))
        inputs, outputs = _specs(graph.inputs), _specs(graph.outputs)
    height_px, width_px = checked_size(inputs, outputs, name, size)
    options = _options(backend, precision, threads)
    place = None if cache is None else private_directory(cache)
    if place is not None:
        options["CACHE_DIR"] = str(place)
    with vendor_errors(f"OpenVINO cannot compile {name} for {_DEVICES[backend]}", REBUILD_MODEL):
        graph.reshape({"images": [1, height_px, width_px, 3]})
        _check_memory(graph, name)
        _quantise_behind_concatenations(graph)
        request = core.compile_model(graph, _DEVICES[backend], options).create_infer_request()
    if place is not None:
        remove_oldest(place, "*.blob", MAX_FILES)
    return request, height_px, width_px


def library_version() -> str:
    """Return the version of the installed openvino, by importing it.

    Returns:
        The version, such as "2026.4.1".

    Raises:
        BackendError: If openvino cannot be imported.
    """
    # With the build, such as 2026.4.1-22982-e213a147257-releases/2026/4.
    return str(_library().__version__).partition("-")[0]


def device_name(backend: str) -> str:
    """Return the full name of the device of a backend, such as "Intel(R) Core(TM) Ultra 7 155H".

    Args:
        backend: Backend of the device.

    Raises:
        BackendError: If openvino or the device is missing.
    """

    def ask() -> str:
        core = _core(backend)
        with vendor_errors(f"OpenVINO cannot ask {_DEVICES[backend]} for its name", _DRIVERS[backend]):
            return str(core.get_property(_DEVICES[backend], "FULL_DEVICE_NAME")).strip()

    with _own_thread() as thread:
        return thread.submit(ask).result()


def _library() -> Any:
    """Import openvino; BackendError if that fails."""
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            f"cannot import openvino ({error})", hint="pip install 'edgead[openvino]'"
        ) from error
    return openvino


def _core(backend: str) -> Any:
    """Start the library; BackendError if the device of the backend is missing."""
    library, device = _library(), _DEVICES[backend]
    with vendor_errors("OpenVINO does not start", "pip install --force-reinstall openvino"):
        core = library.Core()
        found = [str(name) for name in core.available_devices]
    # GPU.0 and GPU.1 if there are two; GPU is the first then.
    if device not in {name.partition(".")[0] for name in found}:
        raise BackendError(
            f"OpenVINO finds no {device} on this machine, but {', '.join(found) or 'no device'}",
            hint=_DRIVERS[backend],
        )
    return core


def _options(backend: str, precision: str, threads: int | None) -> dict[str, Any]:
    """Return the options of a compilation."""
    # An NPU computes in float16 only. On a CPU a float16 graph is computed in float32, which every CPU has.
    half = backend == "openvino-npu" or (backend == "openvino-gpu" and precision == "fp16")
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # One image at a time, as soon as possible, instead of many at once.
        "PERFORMANCE_HINT": "LATENCY",
    }
    if backend == "openvino":
        # Threads are not pinned to cores, so the capture thread can run.
        options |= {
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            "ENABLE_CPU_PINNING": False,
        }
    return options


def _check_memory(graph: Any, name: str) -> None:
    """Refuse a graph that fills the memory, before any of its tensors is computed."""
    held, uses, most = 0, {}, 0
    for node in graph.get_ordered_ops():
        for output in node.outputs():
            shape = output.get_partial_shape()
            if not shape.is_static:
                raise BackendError(f"{name} has a tensor without a fixed size ({shape})", hint=REBUILD_MODEL)
            taken = output.get_element_type().size * math.prod(shape.to_shape())
            uses[node.get_name(), output.get_index()] = len(output.get_target_inputs()), taken
            held += taken
        most = max(most, held)
        for source in node.input_values():
            key = source.get_node().get_name(), source.get_index()
            left, taken = uses[key]
            uses[key] = left - 1, taken
            held -= taken if left == 1 and source.get_node().get_type_name() != "Constant" else 0
    if most > (limit := memory_limit_bytes()):
        raise BackendError(
            f"{name} needs {most / 2**30:.0f} GiB for its tensors, and this machine gives it at most "
            f"{limit / 2**30:.0f}",
            hint=REBUILD_MODEL,
        )


def _quantise_behind_concatenations(graph: Any) -> None:
    """Keep the rounding of a concatenation behind it.

    OpenVINO 2026.4 moves it in front, to each input, and rounds all of them to values without a sign if one has none:
    negative values of the others are lost. A maximum with the lowest number changes no value, and nothing is
    moved across it.
    """
    from openvino import opset13 as operators

    for node in graph.get_ordered_ops():
        source = node.input_value(0) if node.get_type_name() == "FakeQuantize" else None
        if source is not None and source.get_node().get_type_name() == "Concat":
            lowest = operators.constant(np.finfo(np.float32).min, np.float32)
            node.input(0).replace_source_output(operators.maximum(source, lowest).output(0))


def _specs(ports: Iterable[Any]) -> list[TensorSpec]:
    """Translate OpenVINO's description of inputs or outputs; a free length is None."""
    dtypes = {"u8": "uint8", "f32": "float32"}
    return [
        TensorSpec(
            port.get_any_name(),
            dtypes.get(kind := port.get_element_type().to_string(), kind),
            tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape()),
        )
        for port in ports
    ]
