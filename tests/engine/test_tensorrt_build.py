"""Real engines, built by TensorRT for RTX on this machine; it needs no GPU for that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import platform
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import ENGINE_FILE, BuiltEngine, build_engine
from edgead.errors import BackendError, InputError
from edgead.export.precision.float16 import float16_from_float32
from edgead.runtime.tensorrt.engine_record import EngineRecord
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.runtime.tensorrt.library import check_engine, load_library
from edgead.types import HeadSpec
from tests.helpers.int8_graph import int8_graph
from tests.helpers.tensorrt_rtx_here import needs_no_gpu, needs_tensorrt_rtx
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

pytestmark = needs_tensorrt_rtx

GPUS = ("8.6", "8.9", "12.0")


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., BuiltEngine]:
    def build(model: ModelProto | bytes, **changes: Any) -> BuiltEngine:
        file = tmp_path / "model.onnx"
        file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        options: dict[str, Any] = {
            "backend": "tensorrt-rtx",
            "precision": "fp32",
            "target": "rtx",
            "batch": BatchProfile(1, 1, 4),
            "settings": TensorRTSettings(compute_capabilities=GPUS),
            "gpu": None,
        }
        where = {
            "directory": tmp_path / "engine",
            "timing_caches": tmp_path / "timings",
        }
        where |= {name: changes.pop(name) for name in where.keys() & changes.keys()}
        return build_engine(file, EngineRequest(**options | changes), **where)

    return build


def toy_int8() -> ModelProto:
    return int8_graph(toy_graph(), toy_images(2))


def with_student(**changes: Any) -> ModelProto:
    """The toy graph with a replaced Relu before the student."""
    model = toy_graph()
    relu = model.graph.node[8]
    assert relu.op_type == "Relu"
    for field, value in changes.items():
        setattr(relu, field, value)
    if relu.domain:
        model.opset_import.append(helper.make_opsetid(relu.domain, 1))
    return model


def refusal(build: Callable[..., BuiltEngine], *arguments: Any, **changes: Any) -> BackendError:
    """The error of a build, which is one line."""
    with pytest.raises(BackendError) as caught:
        build(*arguments, **changes)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("precision", "graph"),
    [("fp32", toy_graph), ("fp16", lambda: float16_from_float32(toy_graph())), ("int8", toy_int8)],
)
def test_every_precision_becomes_an_engine_of_its_record(build, tmp_path, precision, graph):
    model = graph()
    built = build(model, precision=precision)
    assert built.path == tmp_path / "engine" / ENGINE_FILE
    assert [path.name for path in built.path.parent.iterdir()] == [ENGINE_FILE]
    assert built.record == EngineRecord(
        backend="tensorrt-rtx",
        library_version=sys.modules["tensorrt_rtx"].__version__,
        platform=f"linux-{platform.machine()}",
        compute_capabilities=GPUS,
        hardware_compatibility="none",
        version_compatible=False,
        precision=precision,
        batch=(1, 1, 4),
        graph_sha256=hashlib.sha256(model.SerializeToString()).hexdigest(),
        target="rtx",
    )
    assert EngineRecord.from_json(built.record.to_json(), "") == built.record
    assert built.seconds > 0
    # TensorRT for RTX recognises its own engines. It may complain about the GPU, but not about the file.
    library = load_library("tensorrt-rtx")
    _, found = library.module.Runtime(library.logger).get_engine_validity(built.path.read_bytes())
    malformed = library.module.EngineInvalidityDiagnostics.MALFORMED_ENGINE
    mismatch = library.module.EngineInvalidityDiagnostics.VERSION_MISMATCH
    assert not found & (int(malformed) | int(mismatch))


@pytest.mark.parametrize(
    ("precision", "graph", "dtype"),
    [
        ("fp32", toy_graph, "float32"),
        ("fp16", lambda: float16_from_float32(toy_graph()), "float16"),
        ("int8", toy_int8, "float32"),
    ],
)
def test_every_precision_becomes_an_engine_of_features(build, tmp_path, precision, graph, dtype):
    # The worker compares the outputs that the parser finds with the names, types and axes of the record.
    model = graph()
    whole = build(model, precision=precision, directory=tmp_path / "whole")
    built = build(model, precision=precision, head="kernels")
    features = FeatureRecord(dtype, ((8, HEIGHT // 4, WIDTH // 4),), HeadSpec(HEIGHT, WIDTH, sigma=1.0))
    assert built.record == dataclasses.replace(whole.record, head="kernels", features=features)
    assert EngineRecord.from_json(built.record.to_json(), "") == built.record
    # The matrices and layers of the head are gone, and the layers of the features are there.
    assert 0.1 * whole.path.stat().st_size < built.path.stat().st_size < whole.path.stat().st_size


def test_features_of_mixed_types_are_built_as_float32(build):
    # The student's last node is its only one in float16.
    model = toy_graph()
    half = onnx.TensorProto.FLOAT16
    head = model.graph.node.pop()
    model.graph.node.append(helper.make_node("Cast", ["student"], ["narrow"], to=half))
    head.input[1] = "narrow"
    model.graph.node.append(head)
    built = build(model, head="kernels")
    assert built.record.features is not None
    assert built.record.features.dtype == "float32"


def test_a_head_that_the_kernels_cannot_compute_is_refused_with_its_sigma(build):
    model = toy_graph()
    (sigma,) = (a for a in model.graph.node[-1].attribute if a.name == "sigma")
    sigma.f = 33.0
    message = str(refusal(build, model, head="kernels"))
    for value in ("32.0", "33.0", "--head standard"):
        assert value in message


def test_features_of_a_graph_without_a_head_are_refused(build):
    model = toy_graph()
    del model.graph.node[-1]
    assert "edgead::AnomalyMap" in str(refusal(build, model, head="kernels"))


def test_a_plugin_is_refused_for_a_library_without_plugins(build):
    with pytest.raises(InputError) as caught:
        build(toy_graph(), head="plugin")
    assert "TensorRT for RTX" in caught.value.what
    assert "--head standard" in caught.value.hint


def test_the_weights_of_half_a_graph_take_half_the_engine(build):
    model = toy_graph()
    # The student is so wide that its weights are larger than the kernels.
    width = 1024
    weights = {weight.name: weight for weight in model.graph.initializer}
    for name, shape in {
        "down_w": (width, 8, 3, 3),
        "main_w": (width, width, 3, 3),
        "main_b": (width,),
        "up_w": (width, 8, 2, 2),
    }.items():
        values = np.random.default_rng(0).normal(0.0, 0.01, shape).astype(np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    exact = build(model).path.stat().st_size
    half = build(float16_from_float32(model)).path.stat().st_size
    quarter = build(int8_graph(model, toy_images(2))).path.stat().st_size
    # 9.5 million weights, and less than 1.5 MB of everything else.
    assert 0.5 <= half / exact <= 0.54
    assert 0.25 <= quarter / exact <= 0.30


def test_progress_comes_in_order_and_no_more_than_a_few_lines_a_second(build, caplog):
    caplog.set_level(logging.INFO, "edgead")
    built = build(toy_graph())
    lines = caplog.messages
    # The library is loaded, the graph is read, and the engine is compiled in steps and written.
    steps = lines[3:-1]
    assert [line.endswith(" %") for line in lines] == [False] * 3 + [True] * len(steps) + [False]
    assert 1 <= len(steps) <= 1 + built.seconds / 0.3
    assert all(0 <= int(line.split(", ")[1].removesuffix(" %")) <= 100 for line in steps)


def test_an_engine_is_replaced_and_kept_when_the_next_build_fails(build):
    first = build(toy_graph())
    content = first.path.read_bytes()
    model = toy_graph()
    del model.functions[:]
    refusal(build, model)
    assert first.path.read_bytes() == content
    assert [path.name for path in first.path.parent.iterdir()] == [ENGINE_FILE]
    assert build(toy_graph(seed=1)).path.read_bytes() != content


def layers_of(built: BuiltEngine) -> list[dict[str, Any]]:
    assert built.layers is not None
    found: list[dict[str, Any]] = json.loads(built.layers)["Layers"]
    return found


def types_of_convolutions(layers: list[dict[str, Any]]) -> list[str]:
    """Type of the data input of each convolution, in the order of the engine."""
    kinds = ("correlation", "deconv")
    return [layer["Inputs"][0]["Datatype"] for layer in layers if layer["LayerType"] in kinds]


def test_the_layers_of_an_engine_are_listed_without_a_gpu(build):
    layers = layers_of(build(toy_graph()))
    # The toy has four convolutions and a transposed one. Its images come first.
    assert types_of_convolutions(layers) == ["Float"] * 5
    assert {
        "Name": "images",
        "Dimensions": [-1, HEIGHT, WIDTH, 3],
        "Datatype": "UInt8",
        "Format": "(Linear) Row major linear format",
    } in [tensor for layer in layers for tensor in layer["Inputs"]]
    outputs = {tensor["Name"] for layer in layers for tensor in layer["Outputs"]}
    assert {"anomaly_map", "anomaly_score"} <= outputs


def test_beside_int8_on_a_float16_base_no_convolution_is_float32(build):
    model = toy_graph()
    half = layers_of(build(float16_from_float32(model)))
    plain = layers_of(build(int8_graph(model, toy_images(2))))
    mixed = layers_of(build(float16_from_float32(int8_graph(model, toy_images(2)))))
    # The first and the transposed convolution are not INT8. In float16 the first, 1x1 of three channels, is part of a
    # kernel of element-wise operators.
    assert types_of_convolutions(half) == ["Half"] * 4
    assert types_of_convolutions(plain) == ["Float", *["Int8"] * 3, "Float"]
    assert types_of_convolutions(mixed) == [*["Int8"] * 3, "Half"]
    # TensorRT for RTX fuses no Q/DQ pair into a convolution: each of the three has a kernel that rounds its input.
    assert [kernels(layers, "Roun") for layers in (half, plain, mixed)] == [0, 3, 3]
    # Only float16 has a kernel that does nothing but pad channels. The float16 base adds none that only casts.
    assert [only_reformats(layers) for layers in (half, plain, mixed)] == [1, 0, 0]
    assert bytes_of(mixed) < bytes_of(plain)


def kernels(layers: list[dict[str, Any]], operation: str) -> int:
    """Number of generated kernels with an operation, which their names list."""
    return sum(operation in layer["Name"] for layer in layers if layer["LayerType"] == "kgen")


def only_reformats(layers: list[dict[str, Any]]) -> int:
    """Number of kernels that change only the type, the layout or the padding of a tensor."""
    return sum(
        bool(re.match(r"__myl_((Cast|Tran|Move|Resh|Conc|Repl)+)_", layer["Name"])) for layer in layers
    )


def bytes_of(layers: list[dict[str, Any]]) -> int:
    """Bytes of all tensors that the layers read and write, for one image."""
    sizes = {"Float": 4, "Half": 2, "Int8": 1, "UInt8": 1, "Int32": 4, "Int64": 8, "Bool": 1}
    return sum(
        sizes[tensor["Datatype"]] * abs(math.prod(tensor["Dimensions"]))
        for layer in layers
        for key in ("Inputs", "Constants", "Outputs")
        for tensor in layer[key]
    )


@needs_no_gpu
def test_for_this_machines_gpu_without_one_the_driver_is_named(build):
    assert "NVIDIA driver" in str(refusal(build, toy_graph(), settings=TensorRTSettings(), gpu="8.6"))


@needs_no_gpu
def test_without_a_gpu_a_whole_engine_is_not_called_broken(build):
    engine = build(toy_graph()).path.read_bytes()
    with pytest.raises(BackendError) as caught:
        check_engine(load_library("tensorrt-rtx"), engine, "the engine", "edgead build")
    assert "NVIDIA driver" in str(caught.value)
    assert "edgead build" not in str(caught.value)


def test_no_gpu_to_build_for_is_refused_with_the_known_compute_capabilities(build):
    error = refusal(build, toy_graph(), settings=TensorRTSettings())
    assert "TensorRT for RTX" in error.what
    assert "compute_capabilities" in error.hint
    assert "7.5, 8.0, 8.6, 8.9, 12.0" in error.hint


def test_an_unknown_compute_capability_is_refused_with_the_known(build):
    error = refusal(build, toy_graph(), settings=TensorRTSettings(compute_capabilities=("8.6", "8.7")))
    assert "8.7" in error.what
    assert "7.5, 8.0, 8.6" in str(error)


@pytest.mark.parametrize(
    "settings",
    [TensorRTSettings(version_compatible=True), TensorRTSettings(hardware_compatibility="ampere+")],
)
def test_settings_that_it_does_not_have_are_refused(build, settings):
    with pytest.raises(InputError) as caught:
        build(toy_graph(), settings=settings)
    for value in ("TensorRT for RTX", "version_compatible", "hardware_compatibility"):
        assert value in caught.value.what


def test_a_head_without_a_body_ends_in_the_parsers_error(build):
    model = toy_graph()
    del model.functions[:]
    error = refusal(build, model)
    assert "node anomaly_map_head (AnomalyMap): " in error.what
    assert "Plugin not found" in error.what


def test_an_unknown_operator_ends_in_the_parsers_error(build):
    error = refusal(build, with_student(op_type="Strange", domain="com.example", name="odd_one"))
    assert "node odd_one (Strange): " in error.what


def test_an_operator_that_it_does_not_support_ends_in_the_parsers_error(build):
    model = toy_graph()
    noise = helper.make_node("Bernoulli", ["student"], ["noise"], name="dice")
    head = model.graph.node.pop()
    head.input[1] = "noise"
    model.graph.node.extend([noise, head])
    onnx.checker.check_model(model)
    assert "node dice (Bernoulli): " in refusal(build, model).what


def test_a_library_that_crashes_ends_in_one_error(build):
    # A plugin of the library, created without its fields, crashes the process.
    error = refusal(build, with_student(op_type="MyelinWeightsTransformPlugin", domain="com.example"))
    assert "TensorRT for RTX" in error.what
    assert "SIGSEGV" in error.what or "MyelinWeightsTransformPlugin" in error.what


@pytest.mark.parametrize(
    "content",
    [toy_graph().SerializeToString()[:5000], b"x" * 3000, b"", toy_graph().SerializeToString() + b"\x07"],
    ids=["cut", "garbage", "empty", "longer"],
)
def test_an_invalid_graph_is_refused(build, content):
    error = refusal(build, content)
    assert "model.onnx" in error.what
    assert "'edgead build'" in error.hint


@pytest.mark.parametrize("tensor", ["images", "anomaly_map"])
def test_a_graph_of_other_inputs_or_outputs_is_refused(build, tensor):
    model = toy_graph()
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == tensor:
                    names[index] = "other"
    value = model.graph.input[0] if tensor == "images" else model.graph.output[0]
    value.name = "other"
    error = refusal(build, model)
    assert "other UINT8" in error.what if tensor == "images" else "other FLOAT" in error.what
    assert "'edgead build'" in error.hint


@pytest.mark.parametrize(
    ("script", "values"),
    [
        (
            "echo 'assertion one' >&2; echo 'and two' >&2; kill -ABRT $$",
            ("SIGABRT", "assertion one and two"),
        ),
        ("cat >/dev/null; kill -KILL $$", ("SIGKILL",)),
        ('cat >/dev/null; printf \'{"progress": "ha\'; kill -SEGV $$', ("SIGSEGV",)),
        ("exec 0<&-; echo 'no such module' >&2; exit 3", (" 3 ", "no such module")),
    ],
    ids=["abort", "killed", "cut answer", "exit"],
)
def test_every_end_of_the_worker_is_one_line(build, tmp_path, monkeypatch, script, values):
    worker = tmp_path / "worker.sh"
    worker.write_text(f"#!/bin/sh\n{script}\n")
    worker.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(worker))
    error = refusal(build, toy_graph())
    for value in (*values, "model.onnx"):
        assert value in error.what
    # Linux kills a process with this signal when memory runs out, so only then there is a hint.
    assert (error.hint is not None) == ("SIGKILL" in values)


def test_an_engine_that_is_written_counts_if_the_library_crashes_in_the_report(build, tmp_path, monkeypatch):
    worker = tmp_path / "worker.sh"
    worker.write_text(f"#!/bin/sh\ncat >/dev/null; echo '{json.dumps({'built': True})}'; kill -SEGV $$\n")
    worker.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(worker))
    assert build(toy_graph()).layers is None


def test_an_interrupt_while_a_line_is_logged_ends_the_build(build, caplog, monkeypatch):
    def stop(record: logging.LogRecord) -> None:
        raise KeyboardInterrupt

    caplog.set_level(logging.INFO, "edgead")
    monkeypatch.setattr(caplog.handler, "emit", stop)
    with pytest.raises(KeyboardInterrupt):
        build(toy_graph())
