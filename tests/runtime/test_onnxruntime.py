from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgead.errors import BackendError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession, library_version


def oracle(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=3)[:, None] / 255


@pytest.fixture
def model(make_model) -> bytes:
    return make_model().SerializeToString()


@pytest.mark.parametrize("count", [1, 3])
def test_infer_gives_the_numbers_of_the_graph(model, images, count):
    with OnnxRuntimeSession(model) as session:
        prediction = session.infer(images[:count])
    np.testing.assert_allclose(prediction.anomaly_map, oracle(images[:count]), atol=1e-6)
    np.testing.assert_allclose(prediction.anomaly_score, oracle(images[:count]).max((1, 2, 3)), atol=1e-6)
    assert prediction.anomaly_map.dtype == prediction.anomaly_score.dtype == np.float32
    assert prediction.anomaly_score.shape == (count,)


def test_a_path_and_its_content_are_the_same_model(model, images, tmp_path):
    (tmp_path / "model.onnx").write_bytes(model)
    with (
        OnnxRuntimeSession(tmp_path / "model.onnx", threads=1) as by_path,
        OnnxRuntimeSession(model) as by_content,
    ):
        np.testing.assert_array_equal(by_path.infer(images).anomaly_map, by_content.infer(images).anomaly_map)


def test_a_session_does_not_keep_the_content_of_its_file(model, images):
    before = sys.getrefcount(model)
    with OnnxRuntimeSession(model) as session:
        assert sys.getrefcount(model) == before
        assert session.infer(images).anomaly_score.shape == (len(images),)


def test_a_view_is_scored_by_its_elements(model, images):
    flipped = images[:, ::-1, :, ::-1]
    with OnnxRuntimeSession(model) as session:
        np.testing.assert_allclose(session.infer(flipped).anomaly_map, oracle(flipped), atol=1e-6)


def test_results_belong_to_the_caller(model, images):
    with OnnxRuntimeSession(model) as session:
        first = session.infer(images[:1])
        kept = first.anomaly_map.copy()
        first_map = first.anomaly_map
        session.infer(images[1:2])
        np.testing.assert_array_equal(first_map, kept)
        first_map[:] = 0
        assert session.infer(images[:1]).anomaly_map.max() > 0


def test_it_describes_its_inputs_and_outputs(model):
    with OnnxRuntimeSession(model) as session:
        assert isinstance(session, Session)
        (images,) = session.inputs
        assert (images.name, images.dtype, images.shape) == ("images", "uint8", (None, 32, 64, 3))
        assert [(spec.name, spec.dtype, spec.shape) for spec in session.outputs] == [
            ("anomaly_map", "float32", (None, 1, 32, 64)),
            ("anomaly_score", "float32", (None,)),
        ]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((32, 64, 3), np.uint8),
        ((0, 32, 64, 3), np.uint8),
        ((1, 64, 32, 3), np.uint8),
        ((1, 3, 32, 64), np.uint8),
        ((1, 32, 64, 1), np.uint8),
        ((1, 32, 64, 3), np.float32),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_its_shape_and_type(model, shape, dtype):
    with (
        OnnxRuntimeSession(model) as session,
        pytest.raises(InputError) as caught,
    ):
        session.infer(np.zeros(shape, dtype))
    assert str(shape) in str(caught.value)
    assert np.dtype(dtype).name in str(caught.value)
    assert "(N, 32, 64, 3) uint8" in str(caught.value)


def test_close_twice_then_infer_is_refused(model, images):
    session = OnnxRuntimeSession(model)
    session.close()
    session.close()
    with pytest.raises(BackendError) as caught:
        session.infer(images)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(model, threads):
    with pytest.raises(InputError) as caught:
        OnnxRuntimeSession(model, threads=threads)
    assert str(threads) in caught.value.what


def test_a_file_that_is_no_model_is_one_line_naming_it(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeSession(path)
    assert str(path) in caught.value.what
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BackendError, match=r"gone\.onnx"):
        OnnxRuntimeSession(tmp_path / "gone.onnx")


def test_another_input_type_is_refused(make_model):
    with pytest.raises(BackendError, match=r"images float32 \(N, 32, 64, 3\)"):
        OnnxRuntimeSession(make_model(dtype=TensorProto.FLOAT).SerializeToString())


def test_a_free_image_size_is_refused(make_model):
    with pytest.raises(BackendError, match=r"images uint8 \(N, N, 64, 3\)"):
        OnnxRuntimeSession(make_model(height="height").SerializeToString())


def test_a_second_input_is_refused(make_model):
    model = make_model()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(BackendError, match="more float32"):
        OnnxRuntimeSession(model.SerializeToString())


def test_a_missing_output_is_refused(make_model):
    model = make_model()
    del model.graph.output[1]
    with pytest.raises(BackendError, match=r"anomaly_map float32 \(N, 1, 32, 64\)") as caught:
        OnnxRuntimeSession(model.SerializeToString())
    # Once in the outputs that are expected, and not in those of the model.
    assert caught.value.what.count("anomaly_score") == 1


def test_a_model_of_another_size_than_its_bundle_is_refused(model):
    with pytest.raises(BackendError, match="32x64") as caught:
        OnnxRuntimeSession(model, size=ModelSize(64, 64))
    assert "64x64" in caught.value.what


def test_a_failure_inside_the_runtime_is_one_line_and_not_printed_by_the_runtime(make_model, images, capfd):
    # The graph reads row N - 1 of a table with one row: that is valid for one image and out of bounds for more.
    model = make_model()
    table, one = np.array([255], np.float32), np.array([1], np.int64)
    model.graph.initializer.extend(
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(one, "one")]
    )
    lookup = [
        helper.make_node("Shape", ["images"], ["count"], start=0, end=1),
        helper.make_node("Sub", ["count", "one"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["divisor"]),
    ]
    nodes = [*lookup, *model.graph.node]
    nodes[-2].input[1] = "divisor"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with OnnxRuntimeSession(model.SerializeToString()) as session:
        assert session.infer(images[:1]).anomaly_map.shape == (1, 1, 32, 64)
        with pytest.raises(BackendError) as caught:
            session.infer(images)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_outside_the_bundle_are_not_read(make_model, tmp_path, absolute):
    (tmp_path / "secret.bin").write_bytes(np.float32(1 / 255).tobytes())
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    model = make_model()
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    scale.ClearField("raw_data")
    scale.data_location = TensorProto.EXTERNAL
    location = scale.external_data.add()
    location.key, location.value = "location", str(tmp_path / "secret.bin") if absolute else "../secret.bin"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BackendError) as caught:
        OnnxRuntimeSession(bundle / "model.onnx")
    assert str(bundle / "model.onnx") in caught.value.what
    assert caught.value.__cause__ is not None


def test_without_onnxruntime_the_error_has_the_command_that_installs_it(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        OnnxRuntimeSession(tmp_path / "model.onnx")
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        library_version()


@pytest.mark.parametrize("module", ["edgead.runtime.onnxruntime", "edgead.export.from_torch"])
def test_the_library_sends_no_telemetry_and_does_not_miss_a_home(module: str) -> None:
    # With telemetry, ONNX Runtime prints a warning as soon as it is imported without a writable HOME.
    environment = {**os.environ, "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    code = (
        f"import os, {module}, edgead.runtime.onnxruntime as backend\nbackend.library_version()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
