"""The plugin's node against TensorRT's own ONNX parser and registry, as TensorRT-RTX brings them to a machine without a
GPU: the parser has to find the creator, and the creator to take the node's attributes as the parser hands them over.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgead.export.head.onnx_function import append_head
from edgead.export.head.plugin_node import plugin_head
from edgead.types import HeadSpec
from tests.helpers.tensorrt_headers import plugin_for_rtx, said_by


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return plugin_for_rtx(tmp_path_factory.mktemp("plugin"))


def parse(library: Path, model: onnx.ModelProto, folder: Path, *options: str) -> str:
    graph = folder / "model.onnx"
    onnx.save(model, graph)
    # How it ends is the parser's own affair: TensorRT-RTX has no network to put a plugin into.
    return said_by("parser.py", str(library), str(graph), *options)


def graph(element: int) -> onnx.ModelProto:
    names = ("t0", "t1", "s0", "s1")
    shapes = ((8, 16, 12), (16, 8, 6)) * 2
    values = [
        [
            helper.make_tensor_value_info(name + suffix, element, ["N", *shape])
            for name, shape in zip(names, shapes, strict=True)
        ]
        for suffix in ("", "_features")
    ]
    nodes = [helper.make_node("Relu", [name], [f"{name}_features"]) for name in names]
    model = helper.make_model(
        helper.make_graph(nodes, "features", *values),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return plugin_head(append_head(model, HeadSpec(64, 48, "multiply", 2.5, False)))


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_the_parser_creates_the_plugin(library, tmp_path, element):
    said = parse(library, graph(element), tmp_path)
    assert "Searching for plugin: AnomalyMap, plugin_version: 1, plugin_namespace: edgead" in said
    assert "Successfully created plugin: AnomalyMap" in said
    # An attribute that the parser did not find in the node would be a warning of its own.
    assert "not found in plugin node" not in said


def test_the_parser_hears_why_it_cannot(library, tmp_path):
    model = graph(TensorProto.FLOAT)
    (fusion,) = [a for a in model.graph.node[-1].attribute if a.name == "fusion"]
    fusion.s = b"sum"
    said = parse(library, model, tmp_path)
    assert "ERROR edgead::AnomalyMap: fusion is 'add' or 'multiply', not 'sum'" in said
    assert "Could not create the plugin" in said
    assert "parsed False" in said


def test_another_version_is_not_found(library, tmp_path):
    model = graph(TensorProto.FLOAT)
    (version,) = [a for a in model.graph.node[-1].attribute if a.name == "plugin_version"]
    version.s = b"2"
    said = parse(library, model, tmp_path)
    assert "Successfully created plugin" not in said
    assert "parsed False" in said


def test_it_asks_the_builders_own_registry(library, tmp_path):
    assert "Successfully created plugin: AnomalyMap" in parse(
        library, graph(TensorProto.FLOAT), tmp_path, "builder"
    )
