"""A stand-in for the API of TensorRT that a build uses, in the versions that differ.

TensorRT itself builds only on a machine with its GPU. This module builds nothing. It has exactly the names of the
bindings of 8.6.1, as listed with `dir`, or of NVIDIA's sources of 10.3 and 11.1, so a call that a version does not
support fails here too. It refuses a plugin that is in any registry already. It reads the types of the graph with onnx,
records its settings, and writes the record as the "engine". Tests copy it as tensorrt.py; an environment variable sets
the version. FAKE_TENSORRT_REFUSES=OPERATOR makes it refuse graphs with this operator, FAKE_TENSORRT_COMPLAINT gives the
reason, and FAKE_TENSORRT_DIES names a signal to die of instead. With FAKE_TENSORRT_KEEPS_GRAPH the "engine" is the
graph, which `tests.fakes.tensorrt_runtime` runs.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal
from typing import Any

import onnx

__version__ = os.environ["FAKE_TENSORRT_VERSION"]
MAJOR = int(__version__.split(".")[0])
TOLD: dict[str, Any] = {"flags": [], "cleared": [], "held": []}


def _enum(name: str, *members: str) -> Any:
    return enum.IntEnum(name, {member: value for value, member in enumerate(members)})


DataType = _enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "UINT8")
float32, float16, int8, int32, uint8 = DataType
LayerType = _enum(
    "LayerType",
    *(
        "CONVOLUTION",
        "DECONVOLUTION",
        "CONSTANT",
        "SHAPE",
        "PLUGIN_V2",
        "QUANTIZE",
        "DEQUANTIZE",
        "ELEMENTWISE",
    ),
)
if MAJOR < 10:
    PreviewFeature = _enum("PreviewFeature", "PROFILE_SHARING_0806")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")
BuilderFlag = _enum(
    "BuilderFlag",
    "TF32",
    "VERSION_COMPATIBLE",
    *(("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS") if MAJOR < 11 else ()),
)
HardwareCompatibilityLevel = _enum(
    "HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", *(("SAME_COMPUTE_CAPABILITY",) if MAJOR > 10 else ())
)
NetworkDefinitionCreationFlag = enum.IntEnum(  # type: ignore[misc]
    "NetworkDefinitionCreationFlag",
    {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 1}}[
        MAJOR
    ],
)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, message: str) -> None: ...


class Tensor:
    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class Layer:
    num_outputs = 1

    def __init__(self, node: onnx.NodeProto, dtype: Any) -> None:
        types = {
            "Conv": LayerType.CONVOLUTION,
            "ConvTranspose": LayerType.DECONVOLUTION,
            "QuantizeLinear": LayerType.QUANTIZE,
            "DequantizeLinear": LayerType.DEQUANTIZE,
            "Constant": LayerType.CONSTANT,
            "Shape": LayerType.SHAPE,
        }
        self.type = LayerType.PLUGIN_V2 if node.domain else types.get(node.op_type, LayerType.ELEMENTWISE)
        self._output = Tensor(node.output[0], dtype, ())
        # An input that the graph leaves out is None.
        self._inputs = [Tensor(name, dtype, ()) if name else None for name in node.input]
        self.num_inputs = len(self._inputs)

    def get_output(self, index: int) -> Tensor:
        return self._output

    def get_input(self, index: int) -> Tensor | None:
        return self._inputs[index]

    def _hold(self, dtype: Any) -> None:
        # As NvInfer.h says: "Strongly-typed networks reject calls to method setPrecision".
        assert MAJOR < 10
        TOLD["held"].append([self._output.name, dtype.name])

    precision = property(fset=_hold)


class Registry:
    """The registry of a builder: it loads a plugin library into itself only, or refuses it with an error."""

    def __init__(self, logger: ILogger) -> None:
        self.libraries: list[str] = []
        self._logger = logger

    def load_library(self, path: str) -> object | None:
        if registered() or os.environ.get("FAKE_TENSORRT_NO_PLUGIN"):
            self._logger.log(ILogger.ERROR, "Cannot register the library as plugin creator exists already.")
            return None
        ctypes.CDLL(path)
        ctypes.CDLL(None).unsetenv(b"FAKE_TENSORRT_PLUGIN")
        self.libraries.append(path)
        return object()


def registered() -> bool:
    """Report whether this process opened a plugin; like a real library it leaves a mark in the process."""
    return bool(ctypes.CDLL(None).getenv(b"FAKE_TENSORRT_PLUGIN"))


class Network:
    num_inputs = 1

    def __init__(self, flags: int, registry: Registry) -> None:
        TOLD["network"] = flags
        self.plugins = bool(registry.libraries)
        self._model = onnx.ModelProto()
        self._layers: list[Layer] = []

    def read(self, path: str) -> None:
        self._model = onnx.load(path)
        graph = onnx.shape_inference.infer_shapes(self._model).graph
        values = (*graph.value_info, *graph.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        # Every integer has 32 bits in 8.6. A tensor without a type holds floats.
        dtypes = {
            onnx.TensorProto.FLOAT16: float16,
            onnx.TensorProto.INT8: int8,
            onnx.TensorProto.INT64: int32,
        }
        self._layers = [Layer(node, dtypes.get(types.get(node.output[0], 0), float32)) for node in graph.node]
        self.num_layers = len(self._layers)
        self.num_outputs = len(self._model.graph.output)

    def get_layer(self, index: int) -> Layer:
        return self._layers[index]

    def get_input(self, index: int) -> Tensor:
        return self._tensor(self._model.graph.input[index], uint8)

    def get_output(self, index: int) -> Tensor:
        output = self._model.graph.output[index]
        half = output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        return self._tensor(output, float16 if half else float32)

    def _tensor(self, value: Any, dtype: Any) -> Tensor:
        # A length that the graph leaves open is -1.
        return Tensor(value.name, dtype, tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim))


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self._network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        self._network.read(path)
        plugins = registered() or self._network.plugins
        refused = [node for node in self._network._model.graph.node if node.domain and not plugins]
        self.num_errors = len(refused)
        return not refused

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class ParserError:
    def node(self) -> int:
        return 13

    def desc(self) -> str:
        return "no importer"

    if MAJOR >= 10:

        def node_name(self) -> str:
            return "anomaly_map_head"

        def node_operator(self) -> str:
            return "AnomalyMap"


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+measured"


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        TOLD["profile"] = [name, *map(list, shapes)]


class IBuilderConfig:
    # Like the vendor's class, it accepts only known attributes.
    __slots__ = (
        "_cache",
        "builder_optimization_level",
        "hardware_compatibility_level",
        "profiling_verbosity",
    ) + (("progress_monitor",) if MAJOR >= 10 else ())

    if not os.environ.get("FAKE_TENSORRT_CARRIES_NOTHING"):

        @property
        def plugins_to_serialize(self) -> list[str]:
            return TOLD.get("carried", [])

        @plugins_to_serialize.setter
        def plugins_to_serialize(self, paths: list[str]) -> None:
            # The vendor's binding takes a list of str.
            assert all(type(path) is str for path in paths)
            TOLD["carried"] = paths

    def set_flag(self, flag: Any) -> None:
        TOLD["flags"].append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        TOLD["cleared"].append(flag.name)

    if MAJOR < 10:

        def set_preview_feature(self, feature: Any, enabled: bool) -> None:
            TOLD["preview"] = [feature.name, enabled]

    def set_memory_pool_limit(self, pool: Any, limit: int) -> None:
        TOLD["workspace"] = limit

    def add_optimization_profile(self, profile: Profile) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if b"other GPU" in cache.content and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self._cache


if MAJOR >= 10:

    class IProgressMonitor:
        pass


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if os.environ.get("FAKE_TENSORRT_NO_DRIVER"):
            # 8.6.1 behaves like this on a machine without a driver.
            logger.log(
                ILogger.WARNING, "CUDA initialization failure with error: 35. Please check your installation"
            )
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._registry, self._logger = Registry(logger), logger

    def get_plugin_registry(self) -> Registry:
        return self._registry

    def create_network(self, flags: int) -> Network:
        return Network(flags, self._registry)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: IBuilderConfig) -> bytes | None:
        refused = os.environ.get("FAKE_TENSORRT_REFUSES")
        if any(node.op_type == refused for node in network._model.graph.node):
            if death := os.environ.get("FAKE_TENSORRT_DIES"):
                os.kill(os.getpid(), signal.Signals[death])
            # As 8.6 answers for INT8 layers that it has no kernel for.
            complaint = (
                "Error Code 10: Internal Error (Could not find any implementation for node conv_t + relu_t.)"
            )
            self._logger.log(ILogger.ERROR, os.environ.get("FAKE_TENSORRT_COMPLAINT", complaint))
            return None
        TOLD["level"] = config.builder_optimization_level
        TOLD["verbosity"] = config.profiling_verbosity.name
        TOLD["hardware"] = getattr(
            config, "hardware_compatibility_level", HardwareCompatibilityLevel.NONE
        ).name
        if MAJOR >= 10:
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 4)
            monitor.step_complete("Building engine", 1)
            monitor.phase_finish("Building engine")
        if os.environ.get("FAKE_TENSORRT_KEEPS_GRAPH"):
            return b"engine" + network._model.SerializeToString()
        return json.dumps(TOLD).encode()


class Inspector:
    def get_engine_information(self, form: Any) -> str:
        return f'{{"Layers": [], "form": "{form.name}"}}'


class Engine:
    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, engine: bytes) -> Engine | None:
        if engine.startswith(b"engine"):
            return Engine()
        told = json.loads(engine)
        if "VERSION_COMPATIBLE" in told["flags"] and not self.engine_host_code_allowed:
            return None
        if told.get("carried") and registered():
            return None
        return Engine()
