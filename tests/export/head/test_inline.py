from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from edgead.export.head.inline import without_head_function
from edgead.export.precision.float16 import float16_from_float32
from tests.helpers.toy_graph import toy_graph, toy_images


def run(model: ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "anomaly_score"], {"images": images})


@pytest.mark.parametrize("convert", [lambda model: model, float16_from_float32], ids=["fp32", "fp16"])
def test_the_inlined_graph_gives_what_the_function_gives(convert):
    model, images = convert(toy_graph()), toy_images(3)
    inlined = without_head_function(model)
    for inside, outside in zip(run(inlined, images), run(model, images), strict=True):
        assert outside.std() > 0
        np.testing.assert_allclose(inside, outside, rtol=1e-6, atol=1e-7)


def test_nothing_of_the_function_is_left_and_the_given_model_stays():
    model = toy_graph()
    inlined = without_head_function(model)
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} == {""}
    assert [opset.domain for opset in inlined.opset_import] == [""]
    assert model == toy_graph()
    assert [output.name for output in inlined.graph.output] == ["anomaly_map", "anomaly_score"]
    assert inlined.graph.input == model.graph.input


def test_a_head_without_a_body_stays_for_a_plugin():
    model = toy_graph()
    del model.functions[:]
    inlined = without_head_function(model)
    assert [node.op_type for node in inlined.graph.node if node.domain == "edgead"] == ["AnomalyMap"]
    assert "edgead" in [opset.domain for opset in inlined.opset_import]


def test_a_graph_that_is_not_valid_is_not_passed_on():
    model = toy_graph()
    model.graph.node[5].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError):
        without_head_function(model)
