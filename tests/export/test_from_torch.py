"""The exported graph against the method it was written from: torch features, the map from the oracle."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto

from edgead.export.from_torch import onnx_from_method
from edgead.imaging.anomaly_map import anomaly_map
from edgead.imaging.preprocess import ModelSize
from edgead.types import HeadSpec
from tests.helpers.toy_method import ToyMethod

SIZE = ModelSize(64, 96)


def toy(fusion: str = "add") -> ToyMethod:
    return ToyMethod(HeadSpec(SIZE.height_px, SIZE.width_px, fusion)).eval()


@pytest.fixture(scope="module")
def model() -> ModelProto:
    return onnx_from_method(toy(), SIZE)


def make_images(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE.height_px, SIZE.width_px, 3), np.uint8)


def run(model: ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_graph_scores_as_the_method(model: ModelProto, count: int) -> None:
    images = make_images(count)
    with torch.no_grad():
        teacher, student = toy().features(torch.from_numpy(images))
    expected = anomaly_map([t.numpy() for t in teacher], [s.numpy() for s in student], 64, 96)
    for found, wanted in zip(run(model, images), expected, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-5)


def test_the_head_of_the_method_is_the_head_of_the_graph() -> None:
    method, images = toy("multiply"), make_images(2)
    with torch.no_grad():
        teacher, student = method.features(torch.from_numpy(images))
    expected = anomaly_map([t.numpy() for t in teacher], [s.numpy() for s in student], 64, 96, "multiply")
    np.testing.assert_allclose(
        run(onnx_from_method(method, SIZE), images)[0], expected[0], rtol=0.0, atol=1e-5
    )


def test_inputs_and_outputs_are_as_every_graphs(model: ModelProto) -> None:
    described = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in [*model.graph.input, *model.graph.output]
    }
    assert described == {
        "images": (TensorProto.UINT8, ["N", 64, 96, 3]),
        "anomaly_map": (TensorProto.FLOAT, ["N", 1, 64, 96]),
        "anomaly_score": (TensorProto.FLOAT, ["N"]),
    }


def test_nothing_is_left_of_batch_norm_and_one_node_of_the_head(model: ModelProto) -> None:
    found = Counter(node.op_type for node in model.graph.node)
    assert found["BatchNormalization"] == 0
    assert found["AnomalyMap"] == 1
    assert found["Transpose"] == 1
    assert [function.name for function in model.functions] == ["AnomalyMap"]
    # TensorRT lets a uint8 input feed nothing but a Cast.
    assert [node.op_type for node in model.graph.node if "images" in node.input] == ["Cast"]


def test_the_file_contains_nothing_about_the_machine_it_was_built_on(model: ModelProto) -> None:
    assert model.producer_name == "edgead"
    assert not model.metadata_props
    assert all(not node.metadata_props and not node.doc_string for node in model.graph.node)
    assert b".py" not in model.SerializeToString()


def test_the_same_method_gives_the_same_file(model: ModelProto) -> None:
    assert onnx_from_method(toy(), SIZE).SerializeToString() == model.SerializeToString()


def test_a_method_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval\(\)"):
        onnx_from_method(toy().train(), SIZE)


def test_activations_are_in_place_again_after_the_export() -> None:
    method = toy()
    method.activation = torch.nn.ReLU(inplace=True)
    onnx_from_method(method, SIZE)
    assert method.activation.inplace
