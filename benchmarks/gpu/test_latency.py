"""How long a batch of 256 x 256 images takes on the GPU: engines beside torch and ONNX Runtime, in one run.

Inside every figure: uint8 images in host memory, their copy to the GPU, cast and normalisation, teacher, student,
head, and the copy of map and score back into arrays in host memory; one call after another, each waited for. Outside:
capture, decoding, resizing, building, compiling, and the calls before, which warm up.

The model is RD with a Lite0 teacher and random weights, which change no latency. An engine is built for its batch
alone. TF32 is off everywhere, so that float32 is float32. torch copies from pageable memory, as `TorchSession` does;
the engine's session from pinned memory, which is part of what it is. `reduce-overhead` is torch.compile with CUDA
graphs.

Run on an idle GPU: ``make bench-gpu``. Skipped, with the reason, where there is no GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from onnx import ModelProto
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import BuiltEngine, build_engine
from edgead.errors import BackendError
from edgead.export.graph_sections import computed_tensors
from edgead.export.precision.calibration import absolute_maxima_of, calibrate
from edgead.export.precision.equalize import equalised
from edgead.export.precision.float16 import float16_from_float32
from edgead.export.precision.quantize import int8_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.base import DistillationMethod
from edgead.models.components.head import AnomalyMapHead
from edgead.models.components.teacher import create_teacher
from edgead.runtime.tensorrt.cuda import Gpu
from edgead.runtime.tensorrt.library import load_library
from edgead.runtime.tensorrt.session import TensorRTSession
from edgead.training.session import TorchSession

SIZE = ModelSize(256, 256)
BATCHES = (1, 8)
ROUNDS, WARM_UP = 300, 50
INT8_BESIDE_FP16 = "int8 beside fp16"


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        return Gpu()
    except BackendError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


@pytest.fixture(scope="module")
def method(gpu: Gpu) -> DistillationMethod:
    torch.manual_seed(0)
    teacher = create_teacher("tf_efficientnet_lite0", "random")
    return create_method("rd", teacher, SIZE, "per-position", "unaligned").eval()


@pytest.fixture(scope="module")
def graphs(method: DistillationMethod) -> dict[str, ModelProto]:
    pytest.importorskip("onnxsim", reason="the graph needs onnxsim: pip install 'edgead[train]'")
    from edgead.export.from_torch import onnx_from_method

    exact = onnx_from_method(method, SIZE)
    noise = make_images(8)
    calibration = calibrate(exact, noise, "minmax")
    equal, clipping_limits = equalised(exact, calibration.channel_maxima), calibration.clipping_limits
    maxima, equal_maxima = (
        absolute_maxima_of(graph, noise, computed_tensors(graph)) for graph in (exact, equal)
    )
    return {
        "fp32": exact,
        "fp16": float16_from_float32(exact, maxima),
        "int8": int8_from_float32(equal, clipping_limits),
        INT8_BESIDE_FP16: float16_from_float32(int8_from_float32(equal, clipping_limits), equal_maxima),
    }


def make_images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE.height_px, SIZE.width_px, 3), np.uint8)


def measure(benchmark: BenchmarkFixture, gpu: Gpu, infer: Callable[[np.ndarray], object], batch: int) -> None:
    benchmark.pedantic(infer, (make_images(batch),), rounds=ROUNDS, warmup_rounds=WARM_UP)
    milliseconds = 1e3 * np.array(benchmark.stats.stats.data)
    benchmark.extra_info |= {
        "gpu": gpu.name,
        "cuda": gpu.cuda_version,
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
        "images_a_second": round(1e3 * batch / float(np.percentile(milliseconds, 50))),
    }
    assert len(milliseconds) == ROUNDS


@pytest.fixture(scope="module")
def built_engine(
    gpu: Gpu, graphs: dict[str, ModelProto], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, int, str], BuiltEngine]:
    """A function that builds an engine for backend, precision, batch and head, once."""

    @cache
    def build(backend: str, precision: str, batch: int, head: str) -> BuiltEngine:
        directory = tmp_path_factory.mktemp("engine")
        # The graph that `edgead build` makes for this library.
        beside = precision == "int8" and load_library(backend).strongly_typed
        graph = graphs[INT8_BESIDE_FP16 if beside else precision]
        (directory / "model.onnx").write_bytes(graph.SerializeToString())
        return build_engine(
            directory / "model.onnx",
            EngineRequest(
                backend=backend,
                precision=precision,
                target="benchmark",
                batch=BatchProfile(batch, batch, batch),
                settings=TensorRTSettings(),
                gpu="{}.{}".format(*gpu.compute_capability),
                head=head,
            ),
            directory=directory,
            timing_caches=tmp_path_factory.getbasetemp() / "timings",
        )

    return build


@pytest.mark.parametrize("batch", BATCHES, ids="batch{}".format)
@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "plain"])
@pytest.mark.parametrize("head", ["standard", "kernels"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_engine(
    benchmark: BenchmarkFixture,
    gpu: Gpu,
    built_engine: Callable[[str, str, int, str], BuiltEngine],
    backend: str,
    precision: str,
    head: str,
    cuda_graphs: bool,
    batch: int,
) -> None:
    module = backend.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    library = load_library(backend)
    here = "{}.{}".format(*gpu.compute_capability)
    if library.targets() and here not in library.targets():
        pytest.skip(f"{library.name} does not build for compute capability {here}")
    built = built_engine(backend, precision, batch, head)
    benchmark.extra_info["library"] = library.name
    with TensorRTSession(built.path, built.record, SIZE, "edgead build", cuda_graphs=cuda_graphs) as session:
        benchmark.extra_info["layers"] = int(session._engine._engine.num_layers)
        measure(benchmark, gpu, session.infer, batch)


@pytest.fixture
def without_tf32(gpu: Gpu) -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.usefixtures("without_tf32")
def test_torch_eager(benchmark: BenchmarkFixture, gpu: Gpu, method: DistillationMethod, batch: int) -> None:
    with TorchSession(method.cuda()) as session:
        try:
            measure(benchmark, gpu, session.infer, batch)
        finally:
            method.cpu()


class WithHead(torch.nn.Module):
    """Images to map and score in one module, so that all of it is compiled."""

    def __init__(self, method: DistillationMethod) -> None:
        super().__init__()
        self.method = method
        teacher = method.teacher_features(torch.zeros(1, SIZE.height_px, SIZE.width_px, 3, dtype=torch.uint8))
        self.head = AnomalyMapHead(method.head, [(feature.shape[2], feature.shape[3]) for feature in teacher])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(*self.method.features(images))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.usefixtures("without_tf32")
# What the compiler warns of on some GPUs, such as few multiprocessors, is no failure of a measurement.
@pytest.mark.filterwarnings("default")
def test_torch_compile(
    benchmark: BenchmarkFixture, gpu: Gpu, method: DistillationMethod, mode: str, batch: int
) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("torch.compile needs triton, which is not installed")
    torch.compiler.reset()
    module = WithHead(method.cpu()).eval().cuda()
    compiled = torch.compile(module, mode=mode, dynamic=False)

    @torch.no_grad()
    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(result.cpu().numpy() for result in compiled(torch.from_numpy(images).cuda()))

    try:
        measure(benchmark, gpu, infer, batch)
    finally:
        method.cpu()


@pytest.mark.parametrize("batch", BATCHES)
def test_onnxruntime_cuda(
    benchmark: BenchmarkFixture, gpu: Gpu, graphs: dict[str, ModelProto], batch: int
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: pip install onnxruntime-gpu in its place")
    options = {"use_tf32": "0"}
    session = onnxruntime.InferenceSession(
        graphs["fp32"].SerializeToString(), providers=[("CUDAExecutionProvider", options)]
    )
    if session.get_providers()[0] != "CUDAExecutionProvider":
        pytest.skip("onnxruntime's CUDA provider cannot be loaded here")
    measure(benchmark, gpu, lambda images: session.run(None, {"images": images}), batch)
