"""Every method: its graph scores real images as torch does, and every runtime opens its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import nn

from edgead.bundle.graph import check_graph
from edgead.data import Sample, load_images, open_dataset
from edgead.engine.precision_converter import Calibrating, PrecisionConverter
from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import build_engine
from edgead.export.from_torch import onnx_from_method
from edgead.export.graph_sections import CONVOLUTIONS, sections_of
from edgead.export.head.cut import features_of
from edgead.export.head.model_file import file_from_graph, graph_from_file
from edgead.export.precision.float16 import float16_from_float32
from edgead.export.precision.quantize import layers_to_quantise
from edgead.imaging.anomaly_map import bilinear_matrix, gaussian_matrix
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method
from edgead.models.base import DistillationMethod
from edgead.models.components.teacher import DEFAULT_TEACHER, Backbone
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.openvino import OpenVinoSession
from edgead.runtime.tensorrt.library import load_library
from edgead.training.session import TorchSession
from edgead.types import Float64Array, UInt8Array
from tests.helpers.tensorrt_rtx_here import needs_tensorrt_rtx
from tests.helpers.tiny_methods import TINY, TINY_SIZE, made
from tests.helpers.training_parts import TINY_TEACHER, good_parts

# Images beside the repository; their licences forbid to include them.
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CATEGORIES = ("screw", "transistor")


def made_images(size: ModelSize) -> UInt8Array:
    """A random image and two drawn ones."""
    drawn = good_parts(2, size.height_px)
    drawn = np.concatenate([drawn, drawn], axis=2)[:, :, : size.width_px]
    noise = np.random.default_rng(1).integers(0, 256, (1, size.height_px, size.width_px, 3), np.uint8)
    return np.concatenate([noise, drawn])


@dataclass(frozen=True)
class Exported:
    """A method, and its graph."""

    name: str
    teacher: str
    method: DistillationMethod
    graph: ModelProto
    size: ModelSize


# The method and the teacher that a user gets without asking, and every method and variant around a tiny teacher.
@pytest.fixture(scope="module", params=["default", *METHODS, "rstpm:direct", "rstpm:deep"])
def exported(request: pytest.FixtureRequest) -> Exported:
    """Each method with statistics such as training leaves."""
    if request.param == "default":
        name, teacher, size = "rd", DEFAULT_TEACHER, ModelSize(256, 256)
        method = made(name, teacher, size, weights="package").eval()
    else:
        name, size = request.param, TINY_SIZE
        teacher = TINY[name.partition(":")[0]]
        # The default is for unaligned parts.
        method = made(name, teacher, alignment="aligned" if name == "rd" else "unaligned").eval()
    # What the end of each stage of a training keeps of the good images.
    images = torch.from_numpy(made_images(size))
    for stage in range(len(method.hyperparameters.stages)):
        method.enter_stage(stage)
        with torch.no_grad():
            method.finish_stage([(images, method.teacher_features(images))])
    return Exported(name, teacher, method, onnx_from_method(method, size), size)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The first good part of each category, and the first with each of its defects."""
    chosen = []
    for name in CATEGORIES:
        samples = open_dataset(SHARED / name).test
        first = {sample.defect: sample for sample in reversed(samples)}
        assert {sample.label for sample in first.values()} == {0, 1}
        chosen += first.values()
    return chosen


def cosine_distance(a: Float64Array, b: Float64Array) -> Float64Array:
    return 1.0 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def joined(method: DistillationMethod, maps: list[Float64Array]) -> Float64Array:
    """Maps (N, H_k, W_k) of all scales resized, joined and smoothed: (N, H, W)."""
    head = method.head
    large = [
        bilinear_matrix(head.height, x.shape[1], True) @ x @ bilinear_matrix(head.width, x.shape[2], True).T
        for x in maps
    ]
    fused = np.sum(large, axis=0) if head.fusion == "add" else np.prod(large, axis=0)
    return gaussian_matrix(head.height, head.sigma) @ fused @ gaussian_matrix(head.width, head.sigma).T


def one_student(teacher: list[Float64Array], student: list[Float64Array]) -> list[Float64Array]:
    return [cosine_distance(t, s) for t, s in zip(teacher, student, strict=True)]


def three_students(teacher: list[Float64Array], students: list[Float64Array]) -> list[Float64Array]:
    """Equations 7 and 8 of the thesis as they stand there; half of it, which is what the head is given."""
    maps = []
    for k, features in enumerate(teacher):
        t = features / np.linalg.norm(features, axis=1, keepdims=True)
        unit = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in students[k::3]]
        assert len(unit) == 3
        error = 0.5 * np.linalg.norm(t - np.mean(unit, axis=0), axis=1) ** 2
        variance = np.linalg.norm(np.std(unit, axis=0), axis=1) ** 2
        maps.append((error + variance) / 2.0)
    return maps


def two_pairs(teacher: list[Float64Array], student: list[Float64Array]) -> list[Float64Array]:
    """Equation 1 of RSTPM without its last factor; half of each sum."""
    second = teacher[4:] if len(teacher) > 4 else teacher[:3]
    first = one_student(teacher[:3], student[:3])
    return [(a + b) / 2.0 for a, b in zip(first, one_student(second, student[3:]), strict=True)]


PUBLISHED: dict[str, Callable[[list[Float64Array], list[Float64Array]], list[Float64Array]]] = {
    "rd": one_student,
    "rd++": one_student,
    "stfpm": one_student,
    "stfpm-slim": one_student,
    "stfpm-shared": lambda teacher, student: one_student(teacher[:3], student),
    "stfpm-ensemble": three_students,
    "rstpm": two_pairs,
    "rstpm:direct": two_pairs,
    "rstpm:deep": two_pairs,
}


def scores(graph: ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


def test_the_graph_gives_the_published_map(exported: Exported) -> None:
    name, method, graph = exported.name, exported.method, exported.graph
    if name not in PUBLISHED:
        pytest.skip("its own file has its formula")
    images = made_images(exported.size)
    with torch.no_grad():
        teacher = method.teacher_features(torch.from_numpy(images))
        student = method.student_features(torch.from_numpy(images), teacher)
    expected = joined(
        method, PUBLISHED[name]([x.double().numpy() for x in teacher], [x.double().numpy() for x in student])
    )
    anomaly_map, anomaly_score = scores(graph, images)
    assert expected.max() > 0.01
    np.testing.assert_allclose(anomaly_map[:, 0], expected, rtol=0.0, atol=1e-5)
    np.testing.assert_allclose(anomaly_score, expected.max((1, 2)), rtol=0.0, atol=1e-5)


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in module.modules())


def test_the_graph_is_divided_between_teacher_and_student(exported: Exported) -> None:
    name, method, graph = exported.name, exported.method, exported.graph
    if name not in PUBLISHED:
        pytest.skip("its own file counts its layers")
    sections = sections_of(graph)
    counted = [i for i, node in enumerate(graph.graph.node) if node.op_type in CONVOLUTIONS]
    in_teacher = [i for i in counted if i in sections.teacher]
    # What its three features need, and nothing of a student; the layers below them that a student starts from are the
    # student's.
    assert len(in_teacher) == convolutions(Backbone(exported.teacher, trimmed=True))
    assert len([i for i in counted if i in sections.student]) == len(counted) - len(in_teacher)
    trained = sum(convolutions(module) for key, module in method.named_children() if key != "teacher")
    assert len(counted) - len(in_teacher) >= trained > 0
    assert [node.op_type for node in graph.graph.node if "images" in node.input] == ["Cast"]


def test_half_precision_keeps_the_map(exported: Exported) -> None:
    graph = exported.graph
    images = made_images(exported.size)
    expected, found = scores(graph, images)[0], scores(float16_from_float32(graph), images)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=0.02 * float(expected.max()))


def test_int8_keeps_the_map(exported: Exported, tmp_path: Path) -> None:
    images = made_images(exported.size)
    drawn = good_parts(16, exported.size.height_px)
    good = np.concatenate([drawn, drawn], axis=2)[:, :, : exported.size.width_px]
    calibrating = Calibrating(cache=tmp_path / "calibration.json")
    converter = PrecisionConverter(
        exported.graph.SerializeToString(), calibrating, "tiny", images, lambda count: good[:count]
    )
    rounded = onnx.load_from_string(converter.graph("int8").model)
    assert len([node for node in rounded.graph.node if node.op_type == "QuantizeLinear"]) > 1
    expected, found = scores(exported.graph, images), scores(rounded, images)
    assert not np.array_equal(found[0], expected[0])
    # A build allows 0.3 of the threshold.
    np.testing.assert_allclose(found[0], expected[0], rtol=0.0, atol=0.1 * float(expected[0].max()))
    np.testing.assert_allclose(found[1], expected[1], rtol=0.1)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no images of real parts in {SHARED}")
def test_the_graph_scores_real_parts_as_torch_does(exported: Exported, samples: list[Sample]) -> None:
    with (
        TorchSession(exported.method) as torch_session,
        OnnxRuntimeSession(exported.graph.SerializeToString(), size=exported.size) as session,
    ):
        # Each alone, as a camera brings them.
        for image in load_images(samples, exported.size).images:
            expected, found = torch_session.infer(image[None]), session.infer(image[None])
            assert expected.anomaly_map.std() > 1e-4
            np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=0.0, atol=1e-4)
            np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, rtol=0.0, atol=1e-4)


def test_the_kernels_can_take_its_features_in_fp16(exported: Exported) -> None:
    method, graph = exported.method, exported.graph
    with torch.no_grad():
        pairs = method.features(torch.from_numpy(made_images(exported.size)[:1]))[0]
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


def test_usual_features_and_the_convolutions_before_them_stay_in_float_in_int8() -> None:
    method = made("rd", TINY["rd"], alignment="aligned").eval()
    images = torch.from_numpy(made_images(TINY_SIZE))
    with torch.no_grad():
        method.finish_stage([(images, method.teacher_features(images))])
    graph = onnx_from_method(method, TINY_SIZE)
    usual = {tuple(x.shape) for x in method.buffers(recurse=False)}
    constants = {x.name for x in graph.graph.initializer if tuple(x.dims) in usual}
    added = [node for node in graph.graph.node if constants & set(node.input)]
    assert [node.op_type for node in added] == ["Add"] * 3
    layers = layers_to_quantise(graph)
    assert layers
    before = {name for node in added for name in node.input} - constants
    assert before.isdisjoint(layers)
    assert {node.output[0] for node in added}.isdisjoint(layers)


@needs_tensorrt_rtx
def test_tensorrt_for_rtx_compiles_it_in_fp16(exported: Exported, tmp_path: Path) -> None:
    graph = exported.graph
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
    with OpenVinoSession(file.read_bytes(), threads=1) as session:
        found = session.infer(images)
    return found.anomaly_map, found.anomaly_score


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
    content = file_from_graph(float16_from_float32(exported.graph) if precision == "fp16" else exported.graph)
    check_graph(content, "model.onnx")
    assert {node.domain for node in onnx.load_from_string(content).graph.node} == {""}


def test_its_file_gives_the_same_in_openvino_and_in_opencv(exported: Exported, tmp_path: Path) -> None:
    file, image = tmp_path / "model.onnx", made_images(exported.size)[1:2]
    file.write_bytes(file_from_graph(exported.graph))
    with OnnxRuntimeSession(file, size=exported.size) as session:
        expected = session.infer(image)
    assert expected.anomaly_map.std() > 1e-4
    for anomaly_map, anomaly_score in (
        openvino_answers(file, image),
        opencv_answers(file, image, exported.name),
    ):
        np.testing.assert_allclose(anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(anomaly_score, expected.anomaly_score, rtol=1e-4, atol=1e-4)
