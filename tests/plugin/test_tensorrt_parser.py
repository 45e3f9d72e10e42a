"""The plugin's node against TensorRT's own ONNX parser and registry, as TensorRT-RTX brings them to a machine without a
GPU: the parser has to find the creator, and the creator to take the node's attributes as the parser hands them over.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_headers import DRIVER, NO_HEADERS, PLUGIN, compile_cpp, headers

from edgead.export.head import append_head
from edgead.export.plugin_head import plugin_head
from edgead.plugin.build import tensorrt_version
from edgead.types import HeadSpec


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """The plugin, with a launcher that runs nothing; what it needs of TensorRT is TensorRT-RTX's."""
    # TensorRT 11 cut the registry's interface, and TensorRT-RTX has that one.
    include = next((place for place in headers() if tensorrt_version(place)[0] == 11), None)
    if include is None:
        pytest.skip(f"{NO_HEADERS}, of TensorRT 11")
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    if spec is None:
        pytest.skip("needs TensorRT-RTX: pip install tensorrt-rtx")
    (runtime,) = (
        file for place in spec.submodule_search_locations for file in Path(place).glob("libtensorrt_rtx.so.*")
    )
    library = tmp_path_factory.mktemp("plugin") / "plugin.so"
    sources = [PLUGIN / "tensorrt_plugin.cpp", DRIVER / "launcher.cpp", runtime]
    compile_cpp(include, library, sources, "-O1", "-shared", "-fPIC", "-fvisibility=hidden")
    return library


def parse(library: Path, model: onnx.ModelProto, folder: Path) -> str:
    graph = folder / "model.onnx"
    onnx.save(model, graph)
    command = [sys.executable, str(DRIVER / "parser.py"), str(library), str(graph)]
    # How it ends is the parser's own affair: TensorRT-RTX has no network to put a plugin into.
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


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
