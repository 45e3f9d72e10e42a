"""Every method: its graph scores real images as torch does, and every runtime opens its file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import nn

from edgead.bundle.graph import check_graph
from edgead.data import load_images, open_dataset
from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.export.from_torch import onnx_from_method
from edgead.export.head.cut import features_of
from edgead.export.head.model_file import file_from_graph, graph_from_file
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, hyperparameters_of
from edgead.models.base import DistillationMethod
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.tensorrt.library import load_library
from edgead.training.session import TorchSession
from edgead.types import UInt8Array
from tests.helpers.tensorrt_rtx_here import needs_tensorrt_rtx
from tests.helpers.training_parts import TINY_TEACHER, good_parts

SIZE = ModelSize(256, 256)
# Images beside the repository; their licences forbid to include them.
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CATEGORIES = ("screw", "transistor")
Exported: TypeAlias = tuple[DistillationMethod, ModelProto]


@pytest.fixture(scope="module", params=list(METHODS))
def exported(request: pytest.FixtureRequest) -> Exported:
    """Each method around the default teacher with its own weights, and statistics such as training leaves."""
    name = request.param
    torch.manual_seed(3)
    teacher = METHODS[name].create_teacher(DEFAULT_TEACHER, "package")
    method = create_method(name, teacher, SIZE, hyperparameters_of(name, "edge").loss)
    # Every part but the frozen one, whose statistics are ImageNet's.
    for key, part in method.named_children():
        for module in part.modules() if key != "teacher" else ():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    method.eval()
    # What the end of each stage of a training keeps of the good images.
    images = torch.from_numpy(good_parts(4, SIZE.height_px))
    for stage in range(len(method.hyperparameters.stages)):
        method.enter_stage(stage)
        with torch.no_grad():
            method.finish_stage([(images, method.teacher_features(images))])
    return method, onnx_from_method(method, SIZE)


@pytest.fixture(scope="module")
def images() -> UInt8Array:
    """The first good part of each category, and the first with each of its defects."""
    chosen = []
    for name in CATEGORIES:
        samples = open_dataset(SHARED / name).test
        first = {sample.defect: sample for sample in reversed(samples)}
        assert {sample.label for sample in first.values()} == {0, 1}
        chosen += first.values()
    return load_images(chosen, SIZE).images


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no images of real parts in {SHARED}")
def test_the_graph_scores_real_parts_as_torch_does(exported: Exported, images: UInt8Array) -> None:
    method, graph = exported
    with (
        TorchSession(method) as torch_session,
        OnnxRuntimeSession(graph.SerializeToString(), size=SIZE) as session,
    ):
        # Each alone, as a camera brings them.
        for image in images:
            expected, found = torch_session.infer(image[None]), session.infer(image[None])
            assert expected.anomaly_map.std() > 1e-4
            np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=0.0, atol=1e-4)
            np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, rtol=0.0, atol=1e-4)


def test_the_kernels_can_take_its_features_in_fp16(exported: Exported) -> None:
    method, graph = exported
    with torch.no_grad():
        pairs = method.features(torch.zeros(1, SIZE.height_px, SIZE.width_px, 3, dtype=torch.uint8))[0]
    _, record = features_of(float16_from_float32(graph))
    assert record.shapes == tuple(tuple(x.shape[1:]) for x in pairs)


def test_features_behind_an_upsampling_have_fixed_sizes_in_a_file_of_float16() -> None:
    teacher = METHODS["rd"].create_teacher(TINY_TEACHER, "random")
    size = ModelSize(64, 96)
    method = create_method("rd", teacher, size, "per-position", "aligned").eval()
    # A build from a bundle reads the graph from a file.
    half = float16_from_float32(graph_from_file(file_from_graph(onnx_from_method(method, size))))
    assert "Resize" in {node.op_type for node in half.graph.node}
    for read in (half, graph_from_file(file_from_graph(half))):
        _, record = features_of(read)
        assert [shape[1:] for shape in record.shapes] == [(16, 24), (8, 12), (4, 6)]
        assert read.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "N"


@needs_tensorrt_rtx
def test_tensorrt_for_rtx_compiles_it_in_fp16(exported: Exported, tmp_path: Path) -> None:
    _, graph = exported
    half = float16_from_float32(graph)
    file = tmp_path / "model.onnx"
    file.write_bytes(half.SerializeToString())
    built = build_engine(
        file,
        EngineRequest(
            backend="tensorrt-rtx",
            precision="fp16",
            target="rtx",
            batch=BatchProfile(1, 1, 1),
            settings=TensorRTSettings(compute_capabilities=("8.9",)),
            gpu=None,
        ),
        directory=tmp_path / "engine",
        timing_caches=tmp_path / "timings",
    )
    assert (built.record.precision, built.record.compute_capabilities) == ("fp16", ("8.9",))
    engine = built.path.read_bytes()
    # With all its weights inside.
    assert len(engine) > 0.5 * sum(initialiser.ByteSize() for initialiser in half.graph.initializer)
    library = load_library("tensorrt-rtx")
    _, found = library.module.Runtime(library.logger).get_engine_validity(engine)
    malformed = library.module.EngineInvalidityDiagnostics.MALFORMED_ENGINE
    assert not found & int(malformed)


def openvino_answers(file: Path, images: UInt8Array) -> tuple[np.ndarray, np.ndarray]:
    import openvino

    # By default it computes in bfloat16 on CPUs that have it, and maps are then off by a tenth.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(file, "CPU", options)({"images": images})
    return found["anomaly_map"], found["anomaly_score"]


def opencv_answers(file: Path, images: UInt8Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    # The new engine of OpenCV 5.0 refuses transposed convolutions of a product that was broadcast.
    engine = cv2.dnn.ENGINE_CLASSIC if name.startswith("rstpm") else cv2.dnn.ENGINE_AUTO
    network = cv2.dnn.readNetFromONNX(str(file), engine=engine)
    network.setInput(images, "images")
    anomaly_map, anomaly_score = network.forward(["anomaly_map", "anomaly_score"])
    # OpenCV 4 and its engine in OpenCV 5 give the scores as a column.
    return anomaly_map, anomaly_score.reshape(-1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_its_file_is_opened_by_a_device(exported: Exported, precision: str) -> None:
    content = file_from_graph(float16_from_float32(exported[1]) if precision == "fp16" else exported[1])
    check_graph(content, "model.onnx")
    assert {node.domain for node in onnx.load_from_string(content).graph.node} == {""}


def test_its_file_gives_the_same_in_openvino_and_in_opencv(
    exported: Exported, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = request.node.callspec.params["exported"]
    file, image = tmp_path / "model.onnx", good_parts(1, SIZE.height_px)
    file.write_bytes(file_from_graph(exported[1]))
    with OnnxRuntimeSession(file, size=SIZE) as session:
        expected = session.infer(image)
    assert expected.anomaly_map.std() > 1e-4
    for anomaly_map, anomaly_score in (openvino_answers(file, image), opencv_answers(file, image, name)):
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(anomaly_score, expected.anomaly_score, rtol=1e-4, atol=1e-4)
