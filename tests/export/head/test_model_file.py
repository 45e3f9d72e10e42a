"""The graph as a file: standard operators only, with the same answers, and the head is put back whole."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from edgead.errors import BundleError
from edgead.export.head.model_file import METADATA_KEY, file_from_graph, graph_from_file
from edgead.export.head.plugin_node import plugin_head
from edgead.export.precision.float16 import float16_from_float32
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import toy_graph, toy_images


def int8() -> ModelProto:
    return int8_graph(toy_graph(), toy_images(2))


FORMS = {"fp32": toy_graph, "fp16": lambda: float16_from_float32(toy_graph()), "int8": int8}


@pytest.fixture(params=FORMS)
def graph(request: pytest.FixtureRequest) -> ModelProto:
    return FORMS[request.param]()


def test_the_file_has_standard_operators_only_and_gives_the_same(graph: ModelProto) -> None:
    content, images = file_from_graph(graph), toy_images(3)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]
    with OnnxRuntimeSession(content) as standard, OnnxRuntimeSession(graph.SerializeToString()) as function:
        found, expected = standard.infer(images), function.infer(images)
    assert expected.anomaly_map.std() > 0
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(found.anomaly_score, expected.anomaly_score, rtol=0.0, atol=1e-6)


def test_the_head_is_put_back_as_it_was(graph: ModelProto) -> None:
    before = graph.SerializeToString(deterministic=True)
    read = graph_from_file(file_from_graph(graph))
    assert graph.SerializeToString(deterministic=True) == before
    assert list(read.graph.node) == list(graph.graph.node)
    assert list(read.functions) == list(graph.functions)
    assert list(read.graph.initializer) == list(graph.graph.initializer)
    assert list(read.graph.output) == list(graph.graph.output)
    assert list(read.opset_import) == list(graph.opset_import)
    assert not read.metadata_props
    assert file_from_graph(read) == file_from_graph(graph)
    assert plugin_head(read).graph.node == plugin_head(graph).graph.node


def test_no_constant_is_shared_because_opencv_4_refuses_that() -> None:
    model = onnx.load_from_string(file_from_graph(toy_graph()))
    constants = {weight.name for weight in model.graph.initializer}
    used = [name for node in model.graph.node for name in node.input if name in constants]
    assert len(used) == len(set(used)) == len(constants)


def test_a_file_of_another_program_stays_as_it_is() -> None:
    model = onnx.load_from_string(file_from_graph(toy_graph()))
    del model.metadata_props[:]
    assert graph_from_file(model.SerializeToString()) == model


def test_a_graph_without_a_head_is_not_written() -> None:
    model = toy_graph()
    model.graph.node[-1].domain = "other"
    with pytest.raises(BundleError, match="0 nodes"):
        file_from_graph(model)


HEAD = {"height": 32, "width": 64, "fusion": "add", "sigma": 1.0, "align_corners": True, "weights": []}


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "[]",
        "[" * 100_000,
        {"head": HEAD},
        {"head": HEAD, "features": ["teacher", "student"], "more": 1},
        {"head": {**HEAD, "height": 2**31}, "features": ["teacher", "student"]},
        {"head": {**HEAD, "sigma": "wide"}, "features": ["teacher", "student"]},
        {"head": {**HEAD, "fusion": "divide"}, "features": ["teacher", "student"]},
        {"head": {**HEAD, "sigma": 1e308}, "features": ["teacher", "student"]},
        {"head": {**HEAD, "weights": [1.0, 1.0]}, "features": ["teacher", "student"]},
        {"head": {**HEAD, "weights": [-1.0]}, "features": ["teacher", "student"]},
        {"head": HEAD, "features": []},
        {"head": HEAD, "features": ["teacher"]},
        {"head": HEAD, "features": ["teacher", "gone"]},
        {"head": HEAD, "features": ["teacher", "image"]},
        {"head": HEAD, "features": ["teacher", "down_w"]},
        {"head": HEAD, "features": ["images", "images"]},
    ],
    ids=range(17),
)
def test_an_entry_that_does_not_fit_the_graph_is_refused(entry: object) -> None:
    model = onnx.load_from_string(file_from_graph(toy_graph()))
    assert json.loads(model.metadata_props[0].value) == {"head": HEAD, "features": ["teacher", "student"]}
    helper.set_model_props(model, {METADATA_KEY: entry if isinstance(entry, str) else json.dumps(entry)})
    with pytest.raises(BundleError):
        graph_from_file(model.SerializeToString())


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(BundleError):
        graph_from_file(file_from_graph(toy_graph())[:900])


def test_a_graph_that_no_device_would_open_is_not_written() -> None:
    model = toy_graph()
    model.graph.node[-2].op_type = "Tile"
    model.graph.node[-2].input[1] = "repeats"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.int64), "repeats"))
    del model.graph.node[-2].input[2:], model.graph.node[-2].attribute[:]
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(BundleError, match="Tile"):
        file_from_graph(model)
