"""Which registry has the plugin when an engine carries it, by the registries of TensorRT-RTX, which need no GPU.

The library is real, and so are the registries; what opens an engine and finds a library inside needs a GPU. A copy of
the file stands for what is inside, since TensorRT writes that to a file of its own too.
"""

from __future__ import annotations

import importlib.util
import shutil
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
    shutil.copy(library, library.with_name("inside.so"))
    shutil.copy(library, library.with_name("inside2.so"))
    return library


def said(script: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(DRIVER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.splitlines()


@pytest.fixture
def steps(library):
    def steps(*steps: str) -> list[str]:
        lines = said(
            "registries.py",
            *(f"{name}={library.with_name(file)}" for name, file in (step.split("=") for step in steps)),
        )
        return [line.rstrip() for line in lines]

    return steps


def test_the_builder_of_an_engine_has_it_to_itself(steps):
    # And the runtime that opens the engine for its report gets the engine's own.
    assert steps("builder=plugin.so", "runtime=inside.so") == [
        "builder takes it: builder",
        "runtime takes it: builder runtime",
    ]


def test_sessions_of_both_kinds_go_together_in_any_order(steps):
    assert steps("process=plugin.so", "runtime=inside.so", "other=inside2.so") == [
        "process takes it: global",
        "runtime takes it: global runtime",
        "other takes it: global runtime other",
    ]
    assert steps("runtime=inside.so", "process=plugin.so") == [
        "runtime takes it: runtime",
        "process takes it: global runtime",
    ]


@pytest.mark.parametrize("first", ["process", "global"])
def test_no_registry_takes_two(steps, first):
    taken, refused = steps(f"{first}=plugin.so", "global=inside.so")
    assert taken == f"{first} takes it: global"
    assert refused.startswith("global refuses it: global ")
    # What edgead knows this trouble by.
    assert "exists already" in refused


def test_the_parser_asks_the_builders_own_registry(library, tmp_path):
    names = ("t0", "s0")
    shape = ["N", 8, 16, 12]
    values = [
        [helper.make_tensor_value_info(name + suffix, TensorProto.FLOAT, shape) for name in names]
        for suffix in ("", "_features")
    ]
    nodes = [helper.make_node("Relu", [name], [f"{name}_features"]) for name in names]
    model = helper.make_model(
        helper.make_graph(nodes, "features", *values),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    graph = tmp_path / "model.onnx"
    onnx.save(plugin_head(append_head(model, HeadSpec(64, 48))), graph)
    lines = said("parser.py", str(library), str(graph), "builder")
    assert any("Successfully created plugin: AnomalyMap" in line for line in lines)
