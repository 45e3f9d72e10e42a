"""OpenVINO's answers against NumPy's and ONNX Runtime's, its cache, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgead.bundle import Bundle, open_bundle
from edgead.errors import BackendError, InputError, VerificationError
from edgead.export.head.model_file import file_from_graph
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import Session, open_session
from edgead.runtime.environment import this_environment
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.runtime.openvino import OpenVinoSession, library_version
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import brightness_model, write_brightness_bundle
from tests.helpers.openvino_here import needs_openvino
from tests.helpers.qdq_graph import OUT_STEP, exact_map, grey_images, qdq_graph
from tests.helpers.toy_graph import toy_graph, toy_images

pytestmark = needs_openvino

SIZE = ModelSize(32, 64)
ROOT = Path(__file__).parents[2]


def oracle(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=3)[:, None] / 255


@pytest.fixture(scope="module")
def model() -> bytes:
    return brightness_model().SerializeToString()


@pytest.fixture(scope="module")
def opened(model: bytes) -> Iterator[OpenVinoSession]:
    with OpenVinoSession(model, threads=1) as session:
        yield session


@pytest.mark.parametrize("count", [1, 3])
def test_infer_gives_the_numbers_of_the_graph(opened, images, count):
    prediction = opened.infer(images[:count, ::-1, :, ::-1])
    expected = oracle(images[:count, ::-1])
    np.testing.assert_allclose(prediction.anomaly_map, expected, atol=1e-6)
    np.testing.assert_allclose(prediction.anomaly_score, expected.max((1, 2, 3)), atol=1e-6)
    assert prediction.anomaly_map.dtype == prediction.anomaly_score.dtype == np.float32


def test_results_belong_to_the_caller(opened, images):
    first = opened.infer(images[:1])
    kept = first.anomaly_map.copy()
    opened.infer(images[1:2])
    np.testing.assert_array_equal(first.anomaly_map, kept)
    first.anomaly_map[:] = 0
    assert opened.infer(images[:1]).anomaly_map.max() > 0


def test_it_describes_its_inputs_and_outputs_as_onnx_runtime(opened, model):
    assert isinstance(opened, Session)
    with OnnxRuntimeSession(model) as other:
        assert (opened.inputs, opened.outputs) == (other.inputs, other.outputs)


def test_threads_may_share_a_session(opened):
    images = np.random.default_rng(4).integers(0, 256, (16, 32, 64, 3), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opened.infer, images[:, None]))
    maps = np.concatenate([prediction.anomaly_map for prediction in found])
    np.testing.assert_allclose(maps, oracle(images), atol=1e-6)


def test_a_network_gives_the_numbers_of_onnx_runtime():
    content, images = file_from_graph(toy_graph()), toy_images(4)
    with OnnxRuntimeSession(content) as reference, OpenVinoSession(content, threads=2) as session:
        expected, found = reference.infer(images), session.infer(images)
    # In bfloat16, the library's own choice on processors that have it, it differs by a hundredth.
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, rtol=1e-5, atol=1e-5)


def test_a_float16_graph_gives_the_numbers_of_onnx_runtime():
    content, images = file_from_graph(float16_from_float32(toy_graph())), toy_images(2)
    with OnnxRuntimeSession(content) as reference, OpenVinoSession(content, precision="fp16") as session:
        expected, found = reference.infer(images), session.infer(images)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=5e-3, atol=5e-3)


INT8 = """
import json
from edgead.runtime.openvino import OpenVinoSession
from tests.helpers.qdq_graph import grey_images, qdq_graph

with OpenVinoSession(qdq_graph().SerializeToString(), precision="int8", threads=1) as session:
    print(json.dumps(session.infer(grey_images()).anomaly_map[:, 0, 0, 0].tolist()))
"""


NEEDS_VNNI = pytest.mark.skipif(
    "avx512_vnni" not in this_environment().instruction_sets, reason="this processor has no AVX-512 VNNI"
)


@NEEDS_VNNI
def test_int8_is_computed_as_its_nodes_define_with_vnni_and_saturates_without_it():
    expected = exact_map(grey_images())[:, 0, 0, 0]
    with OpenVinoSession(qdq_graph().SerializeToString(), precision="int8") as session:
        found = session.infer(grey_images()).anomaly_map[:, 0, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * OUT_STEP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", INT8], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # So a build and every start have to compare.
    assert np.abs(np.array(json.loads(done.stdout)) - expected).max() > 10 * OUT_STEP


def with_concatenation() -> bytes:
    """A network that joins two features, of which one alone has negative values, and rounds both with one scale."""
    rng, node = np.random.default_rng(6), helper.make_node
    nodes = [
        node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        node("Transpose", ["cast"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "a_w"], ["signed"]),
        node("Conv", ["planes", "b_w"], ["b"]),
        node("Relu", ["b"], ["positive"]),
        node("Concat", ["positive", "signed"], ["both"], axis=1),
        node("QuantizeLinear", ["both", "step", "zero"], ["both_q"]),
        node("DequantizeLinear", ["both_q", "step", "zero"], ["both_dq"]),
        node("DequantizeLinear", ["w_q", "w_step", "w_zero"], ["w"], axis=0),
        node("Conv", ["both_dq", "w"], ["sum"]),
        node("Relu", ["sum"], ["anomaly_map"]),
        node("GlobalMaxPool", ["anomaly_map"], ["pooled"]),
        node("Squeeze", ["pooled", "axes"], ["anomaly_score"]),
    ]
    weights = {
        "a_w": rng.normal(0, 1 / 255, (16, 3, 1, 1)).astype(np.float32),
        "b_w": rng.normal(0, 1 / 255, (16, 3, 1, 1)).astype(np.float32),
        "step": np.float32(4 / 127),
        "zero": np.int8(0),
        "w_q": rng.integers(-127, 128, (1, 32, 1, 1)).astype(np.int8),
        "w_step": np.array([1 / 127], np.float32),
        "w_zero": np.zeros(1, np.int8),
        "axes": np.array([1, 2, 3], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "concatenation",
        brightness_model().graph.input,
        brightness_model().graph.output,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


@NEEDS_VNNI
def test_int8_of_a_concatenation_keeps_the_sign_of_each_input(images):
    with OnnxRuntimeSession(with_concatenation()) as reference:
        expected = reference.infer(images).anomaly_map
    assert expected.std() > 0.1
    with OpenVinoSession(with_concatenation(), precision="int8") as session:
        found = session.infer(images).anomaly_map
    # A value between two steps may be rounded to either.
    assert np.abs(found - expected).max() <= 2 * 4 / 127
    assert np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(model, threads):
    with pytest.raises(InputError) as caught:
        OpenVinoSession(model, threads=threads)
    assert str(threads) in caught.value.what


def test_a_signal_after_several_models_reaches_its_handler(model):
    # In a process of its own, which it would end.
    code = """
import os, signal, sys
from edgead.runtime.openvino import OpenVinoSession, device_name
model = sys.stdin.buffer.read()
device_name("openvino")
first, second = OpenVinoSession(model, threads=1), OpenVinoSession(model, threads=1)
first.close()
second.close()
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
sys.exit(got != [1])
"""
    ended = subprocess.run([sys.executable, "-c", code], input=model, cwd=ROOT, check=False)
    assert ended.returncode == 0


def test_close_twice_then_infer_is_refused(model, images):
    session = OpenVinoSession(model)
    session.close()
    session.close()
    with pytest.raises(BackendError):
        session.infer(images)


def test_a_batch_that_does_not_fit_is_refused(opened):
    with pytest.raises(InputError):
        opened.infer(np.zeros((1, 64, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": TensorProto.FLOAT}, "images float32 (N, 32, 64, 3)"),
        ({"height": "height"}, "images uint8 (N, N, 64, 3)"),
    ],
)
def test_other_inputs_are_refused_by_their_description(changes, said):
    with pytest.raises(BackendError) as caught:
        OpenVinoSession(brightness_model(**changes).SerializeToString())
    assert said in caught.value.what


def test_a_missing_output_and_another_size_are_refused(model):
    without = brightness_model()
    del without.graph.output[1]
    with pytest.raises(BackendError, match="anomaly_score"):
        OpenVinoSession(without.SerializeToString())
    with pytest.raises(BackendError, match="64x64"):
        OpenVinoSession(model, size=ModelSize(64, 64))


def test_content_that_is_no_model_is_one_line_and_nothing_is_printed(capfd):
    with pytest.raises(BackendError) as caught:
        OpenVinoSession(b"not a model", name="its name")
    assert "its name" in caught.value.what
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")


def with_product(length: int) -> bytes:
    """The brightness model, times the largest value of a product of two vectors of ones."""
    model = brightness_model()
    ones = np.ones(length, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(ones[:, None], "column"))
    model.graph.initializer.append(numpy_helper.from_array(ones[None], "row"))
    next(node for node in model.graph.node if node.op_type == "Mul").input[0] = "more"
    added = [
        helper.make_node("ReduceMax", ["plane"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["column", "brightest"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "row"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["most"], keepdims=0),
        helper.make_node("Mul", ["plane", "most"], ["more"]),
    ]
    nodes = list(model.graph.node)
    kept = [helper.make_node("Identity", [], []) for _ in nodes]
    for copy, node in zip(kept, nodes, strict=True):
        copy.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend([*kept[:3], *added, *kept[3:]])
    return model.SerializeToString()


def test_a_product_that_fills_the_memory_is_refused_before_it_is_computed(images):
    expected = oracle(images) * oracle(images).max((1, 2, 3), keepdims=True) * 255
    with OpenVinoSession(with_product(8)) as session:
        np.testing.assert_allclose(session.infer(images).anomaly_map, expected, rtol=1e-5)
    with pytest.raises(BackendError, match="GiB"):
        # Half a terabyte.
        OpenVinoSession(with_product(360_000))


def test_without_openvino_the_error_has_the_command_that_installs_it(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for fails in (lambda: OpenVinoSession(model), library_version):
        with pytest.raises(BackendError) as caught:
            fails()
        assert caught.value.hint == "pip install 'edgead[openvino]'"


@pytest.mark.parametrize("backend", ["openvino-gpu", "openvino-npu"])
def test_a_missing_device_is_named_and_no_other_is_taken(backend, model):
    import openvino

    device = backend.partition("-")[2].upper()
    if any(name.startswith(device) for name in openvino.Core().available_devices):
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(BackendError) as caught:
        OpenVinoSession(model, backend)
    assert device in caught.value.what


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = write_brightness_bundle(
        tmp_path / "bundle", SIZE, Threshold(0.5, 0.01, 0.95, 0.96, 320, 299), record={"n": 8}
    )
    bundle = open_bundle(path)
    return replace(bundle, manifest=replace(bundle.manifest, backend="openvino", target="intel"))


def test_a_bundle_opens_with_threads_and_keeps_its_compiled_model(bundle, images, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        with open_session(bundle, threads=1) as session:
            np.testing.assert_allclose(session.infer(images).anomaly_map, oracle(images), atol=1e-6)
    place = tmp_path / "cache/edgead/openvino"
    (kept,) = place.iterdir()
    # Nobody else can add a compiled model.
    assert place.stat().st_mode & 0o777 == 0o700
    # A start that was killed left half of it.
    content = kept.read_bytes()
    kept.chmod(0o600)
    kept.write_bytes(content[: len(content) // 2])
    with open_session(bundle, threads=1) as session:
        np.testing.assert_allclose(session.infer(images).anomaly_map, oracle(images), atol=1e-6)


def test_a_folder_that_others_can_write_to_is_no_cache(model, images, tmp_path, caplog):
    tmp_path.chmod(0o777)
    with OpenVinoSession(model, cache=tmp_path) as session:
        assert session.infer(images).anomaly_map.shape == (3, 1, 32, 64)
    assert list(tmp_path.iterdir()) == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path) in record.getMessage()


def test_a_cache_that_cannot_be_made_is_a_warning(model, images, tmp_path, caplog):
    (tmp_path / "file").touch()
    with OpenVinoSession(model, cache=tmp_path / "file/cache") as session:
        assert session.infer(images).anomaly_map.shape == (3, 1, 32, 64)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_oldest_compiled_models_are_removed(model, monkeypatch, tmp_path):
    monkeypatch.setattr("edgead.runtime.openvino.MAX_FILES", 2)
    place = tmp_path / "cache"
    place.mkdir(mode=0o700)
    for number in range(3):
        old = place / f"{number}.blob"
        old.touch()
        os.utime(old, (1e9 + number, 1e9 + number))
    with OpenVinoSession(model, cache=place):
        left = {path.name for path in place.iterdir()}
    assert len(left) == 2
    assert "2.blob" in left


def test_a_device_that_answers_otherwise_is_refused_at_the_start(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    infer = OpenVinoSession.infer

    def off(session: OpenVinoSession, batch: np.ndarray):
        prediction = infer(session, batch)
        prediction.anomaly_map[0, 0, 0, 0] += 0.3
        return prediction

    monkeypatch.setattr(OpenVinoSession, "infer", off)
    with pytest.raises(VerificationError):
        open_session(bundle)


def test_the_environment_names_the_library_and_the_processor():
    import openvino

    found = this_environment(backend="openvino")
    assert openvino.__version__.startswith(found.libraries["openvino"])
    assert found.device == this_environment().device
