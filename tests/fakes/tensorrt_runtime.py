"""A stand-in for TensorRT with an engine that gives the brightness as the map, with the interface of three versions.

`flavour`: "8.6" has no allocation strategies and no memory sizes in its calls, and gives one profile to one context;
"10" has both; "rtx" also has a runtime configuration and a cache. If `tensors` names features instead of a map and a
score, the engine fills them with the values of `feature`. An engine that holds a graph, as `tensorrt_builder` makes
one, gives the map and the score of the graph; `taken` is called with the graph for each of its inferences.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgead.runtime.tensorrt.engine_record import EngineRecord, this_platform
from edgead.runtime.tensorrt.library import Library
from tests.fakes.cuda_driver import StandInDriver


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def take(self) -> str:
        said, self.lines = "; ".join(self.lines), []
        return said


class StandInTensorRT:
    """The module; `refuse` names the call that fails."""

    TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)

    def __init__(
        self,
        driver: StandInDriver,
        flavour: str = "10",
        size: tuple[int, int] = (32, 64),
        batch: tuple[int, int, int] = (1, 2, 4),
    ) -> None:
        self.driver, self.flavour, self.size, self.batch = driver, flavour, size, batch
        self.log, self.refuse, self.scratch = Log(), "", 512
        self.tensors = {
            "images": ("UINT8", (-1, *size, 3)),
            "anomaly_map": ("FLOAT", (-1, 1, *size)),
            "anomaly_score": ("FLOAT", (-1,)),
        }
        self.contexts: list[Context] = []
        self.runtimes: list[Any] = []
        self.kept_kernels = b"kernels"
        self.cache_given = b""
        self.taken: Callable[[onnx.ModelProto], object] = lambda graph: None
        if flavour != "8.6":
            self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
        if flavour == "rtx":
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="disabled")
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
            self.EngineValidity = SimpleNamespace(INVALID="invalid")

    def library(self) -> Library:
        version = {"8.6": (8, 6, 1), "10": (10, 13, 0), "rtx": (1, 7, 1)}[self.flavour]
        backend: Any = "tensorrt-rtx" if self.flavour == "rtx" else "tensorrt"
        return Library(backend, self, version, ".".join(map(str, version)), self.log)

    def Runtime(self, log: Log) -> Any:  # noqa: N802
        def deserialize_cuda_engine(content: bytes) -> Engine | None:
            if not content.startswith(b"engine"):
                log.lines.append("magic tag does not match")
                return None
            if self.refuse == "plugin":
                self.log.lines.append(
                    "Cannot register the library as plugin creator of AnomalyMap exists already."
                )
                return None
            graph = content.removeprefix(b"engine") if content.startswith(b"engine\x08") else None
            return self._unless("deserialise", "out of memory", Engine(self, graph))

        runtime = SimpleNamespace(
            deserialize_cuda_engine=deserialize_cuda_engine,
            get_engine_validity=lambda content: ("valid", 0),
            engine_host_code_allowed=False,
        )
        self.runtimes.append(runtime)
        return runtime

    def _unless(self, what: str, line: str, value: Any) -> Any:
        if self.refuse != what:
            return value
        self.log.lines.append(line)
        return None


class Engine:
    def __init__(self, module: StandInTensorRT, graph: bytes | None = None) -> None:
        self._module = module
        self.graph = None if graph is None else Graph(graph)
        self.num_io_tensors = len(module.tensors)
        if module.flavour == "8.6":
            self.device_memory_size = module.scratch
            self.create_execution_context_without_device_memory = lambda: self._context()
        else:
            self.device_memory_size_v2 = module.scratch

    def get_tensor_name(self, index: int) -> str:
        return list(self._module.tensors)[index]

    def get_tensor_mode(self, name: str) -> int:
        return 0 if name in ("images", "more") else 1

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self._module.tensors[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._module.tensors[name][1]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(count, *self._module.size, 3) for count in self._module.batch]

    def create_execution_context(self, chosen: Any) -> Context | None:
        if self._module.flavour == "rtx":
            assert chosen.strategy == "user managed"
        else:
            assert chosen == "user managed"
        return self._context()

    def create_runtime_config(self) -> Any:
        module = self._module

        def deserialize(content: bytes) -> bool:
            module.cache_given = content
            return content.startswith(b"kernels")

        config = SimpleNamespace(strategy=None, cache=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(
            config, "strategy", strategy
        )
        config.create_runtime_cache = lambda: SimpleNamespace(
            deserialize=deserialize, serialize=lambda: module.kept_kernels
        )
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache) or True
        module.config = config
        return config

    def _context(self) -> Context | None:
        module = self._module
        context = Context(module, self.graph, has_profile=module.flavour != "8.6" or not module.contexts)
        return module._unless("context", "cannot create a context", context)


class Graph:
    """The graph of an engine, run by ONNX Runtime."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.load_from_string(content)
        options = onnxruntime.SessionOptions()
        # As the session of a bundle sets it.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        return self._session.run(["anomaly_map", "anomaly_score"], {"images": images})


class Context:
    def __init__(self, module: StandInTensorRT, graph: Graph | None, has_profile: bool) -> None:
        self._module, self._graph, self._has_profile = module, graph, has_profile
        self._shape: tuple[int, ...] = ()
        self.memory, self._addresses = 0, {}
        module.contexts.append(self)
        if module.flavour != "8.6":
            self.set_device_memory = lambda pointer, size: setattr(self, "memory", pointer)

    @property
    def device_memory(self) -> int:
        return self.memory

    @device_memory.setter
    def device_memory(self, pointer: int) -> None:
        self.memory = pointer

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._has_profile = True
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._module.batch
        self._shape = shape
        return self._has_profile and smallest <= shape[0] <= largest

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._shape[0], *self._module.tensors[name][1][1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        module = self._module
        if module.refuse == "raise":
            raise RuntimeError("the bindings\nraised")
        if module.refuse == "capture" and module.driver.capturing(stream):
            module.driver.invalidate(stream)
            module.log.lines.append("not permitted when the stream is capturing")
            return False
        if module.refuse == "enqueue" or (module.scratch and not self.memory):
            module.log.lines.append("illegal memory access")
            return False
        return module.driver.queue(stream, self._score)

    def _score(self) -> None:
        images = self._tensor("images", ctypes.c_uint8, self._shape)
        if "anomaly_map" not in self._module.tensors:
            for name, (dtype, (_, *shape)) in self._module.tensors.items():
                if name != "images":
                    values = feature(name, images, tuple(shape)).astype("f2" if dtype == "HALF" else "f4")
                    kind = ctypes.c_uint16 if dtype == "HALF" else ctypes.c_float
                    self._tensor(name, kind, values.shape).view(values.dtype)[:] = values
            return
        maps = self._tensor("anomaly_map", ctypes.c_float, self.get_tensor_shape("anomaly_map"))
        if self._graph is not None:
            maps[:], scores = self._graph.run(images)
            self._tensor("anomaly_score", ctypes.c_float, self._shape[:1])[:] = scores
            self._module.taken(self._graph.model)
            return
        maps[:, 0] = images.mean(axis=3, dtype=np.float64) / 255
        self._tensor("anomaly_score", ctypes.c_float, self._shape[:1])[:] = maps.max(axis=(1, 2, 3))

    def _tensor(self, name: str, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((kind * count).from_address(self._addresses[name])).reshape(shape)


def feature(name: str, images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Float64 features (N, C, H, W) of images: mixed colours of blocks, different for each name."""
    channels, height, width = shape
    rng = np.random.default_rng(list(name.encode()))
    blocks = images.reshape(len(images), height, -1, width, images.shape[2] // width, 3).mean((2, 4)) / 255
    return (blocks @ rng.normal(size=(3, channels)) + rng.normal(size=channels)).transpose(0, 3, 1, 2)


def record(module: StandInTensorRT, **changes) -> EngineRecord:
    """The record of an engine that a stand-in built here."""
    library = module.library()
    written = EngineRecord(
        backend=library.backend,
        library_version=library.version_text,
        platform=this_platform(),
        compute_capabilities=("8.6",),
        hardware_compatibility="none",
        version_compatible=False,
        precision="fp32",
        batch=module.batch,
        graph_sha256="0" * 64,
        target="test",
    )
    return replace(written, **changes)
