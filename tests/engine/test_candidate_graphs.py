"""Graphs of the candidate precisions: which layers are INT8, float16 and float32, and how far they are from float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.engine.build import build_bundle
from edgead.engine.precision_converter import (
    Calibrating,
    CandidatePrecision,
    ConvertedModel,
    PrecisionConverter,
)
from edgead.errors import PrecisionError
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from tests.helpers.graph_run import ANYTHING, GOOD, INT8, GraphRun, plan
from tests.helpers.toy_graph import toy_images
from tests.helpers.toy_run import PART

pytestmark = pytest.mark.usefixtures("graph_runs_export")


def types_of(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def converter(folder: Path, half_beside_int8: bool = False) -> PrecisionConverter:
    return PrecisionConverter(
        GraphRun().graph,
        Calibrating(cache=folder / "clipping_limits.json"),
        "toy",
        np.concatenate([GOOD, synthetic_defects(GOOD)]),
        lambda count: GraphRun().training_images(count).images,
        half_beside_int8,
    )


def made(
    folder: Path, candidate_precision: CandidatePrecision, half_beside_int8: bool = False
) -> tuple[ModelProto, ConvertedModel]:
    converted = converter(folder, half_beside_int8).graph(candidate_precision)
    return onnx.load_from_string(converted.model), converted


CONVOLUTIONS = ("conv_t", "down", "main")


def test_the_sensitive_layers_are_half_and_the_others_int8(folder: Path) -> None:
    model, converted = made(folder, "int8-sensitive-fp16")
    onnx.checker.check_model(model, full_check=True)
    found = types_of(model)
    producer = {node.output[0]: node for node in model.graph.node}
    sensitive = converted.details["calibration"]["in_fp16"]
    assert 0 < len(set(sensitive) & set(CONVOLUTIONS)) < len(CONVOLUTIONS)
    for name in CONVOLUTIONS:
        sources = [producer[tensor].op_type for tensor in producer[name].input[:2] if tensor in producer]
        if name in sensitive:
            assert found[name] == TensorProto.FLOAT16, name
            assert "DequantizeLinear" not in sources, name
        else:
            assert found[name] == TensorProto.FLOAT, name
            assert sources == ["DequantizeLinear", "DequantizeLinear"], name
    assert found["anomaly_map"] == TensorProto.FLOAT


@pytest.mark.parametrize("candidate_precision", INT8)
def test_beside_int8_is_no_float32_if_half_is_asked_for(
    candidate_precision: CandidatePrecision, folder: Path
) -> None:
    model, converted = made(folder, candidate_precision, half_beside_int8=True)
    found = types_of(model)
    # The head takes float16 features and squares them in float32.
    for name in ("conv_t", "teacher", "down", "embedding", "main", "sum", "residual", "up", "student"):
        assert found[name] == TensorProto.FLOAT16, name
    producer = {node.output[0]: node for node in model.graph.node}
    int8 = {
        name
        for name in CONVOLUTIONS
        if producer.get(producer[name].input[0], producer[name]).op_type == "DequantizeLinear"
    }
    sensitive = set(converted.details["calibration"]["in_fp16"])
    student = {"down", "main"}
    assert int8 == (student if candidate_precision == "int8-student" else set(CONVOLUTIONS) - sensitive)
    # No cast stands between a pair and its convolution, where a builder could not fuse them.
    for name in int8:
        assert [producer[tensor].op_type for tensor in producer[name].input[:2]] == ["DequantizeLinear"] * 2
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [19]


def with_harm_of(layer: str, folder: Path) -> None:
    """Calibrate, and say that one layer does more harm than INT8 allows, and less than INT8 with less in float does."""
    made(folder, "int8")
    file = folder / "clipping_limits.json"
    harm = {"conv_t": 0.0, "down": 0.0, "main": 0.0, "sum": 0.0, layer: 0.005**2}
    file.write_text(json.dumps({**json.loads(file.read_text()), "harm": harm}))


def test_less_float_leaves_fewer_layers_in_float_for_their_harm(tmp_path: Path) -> None:
    with_harm_of("down", tmp_path)
    in_float = {
        name: made(tmp_path, name)[1].details["calibration"]["in_float"]
        for name in ("int8", "int8-less-float")
    }
    assert in_float == {"int8": ["down"], "int8-less-float": []}
    reads = {node.output[0]: node.input[0] for node in made(tmp_path, "int8-less-float")[0].graph.node}
    assert reads["down"].endswith("_dq")


@pytest.mark.parametrize(("layer", "half"), [("conv_t", "teacher"), ("down", "student")])
def test_a_half_alone_in_int8_leaves_harmful_layers_in_float(
    layer: str, half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The teacher's only layer is more work than may stay in float otherwise.
    monkeypatch.setattr("edgead.export.precision.sensitivity.LARGEST_SHARE", 1.0)
    with_harm_of(layer, tmp_path)
    graphs = converter(tmp_path)
    converted = graphs.teacher_in_int8() if half == "teacher" else graphs.graph("int8-student")
    reads = {node.output[0]: node.input[0] for node in onnx.load_from_string(converted.model).graph.node}
    assert layer in converted.details["calibration"]["in_float"]
    assert not reads[layer].endswith("_dq")


def test_less_float_may_use_half_of_the_tolerance(tmp_path: Path) -> None:
    with_harm_of("down", tmp_path)

    def built(name: str, map_error: float) -> dict[str, Any]:
        int8 = replace(ANYTHING, map_error=map_error)
        wanted = plan(tmp_path, "int8-less-float", "int8", int8=int8)
        return build_bundle(GraphRun(), tmp_path / name, wanted).manifest.verification

    first = built("anything", 10.0)
    assert first["candidate_precision"] == "int8-less-float"
    error = first["parts"][PART]["map_error_max"]
    assert built("twice", 2.1 * error)["candidate_precision"] == "int8-less-float"
    # INT8 errs less here, and is within the tolerance in any case.
    assert built("less", 1.9 * error)["candidate_precision"] == "int8"


def test_less_float_is_refused_where_int8_leaves_no_layer_in_float_for_its_harm(folder: Path) -> None:
    assert made(folder, "int8")[1].details["calibration"]["in_float"] == []
    with pytest.raises(PrecisionError):
        made(folder, "int8-less-float")


def test_half_beside_int8_decides_as_float32_beside_int8(folder: Path) -> None:
    images = toy_images(10, seed=9)
    found = []
    for half in (False, True):
        with OnnxRuntimeSession(made(folder, "int8", half)[1].model) as session:
            found.append(session.infer(images).anomaly_map)
    with OnnxRuntimeSession(GraphRun().graph) as session:
        exact = session.infer(images).anomaly_map
    # Float16 has 11 bits and INT8 has 8, so float16 beside INT8 changes less than INT8 does. It still moves values at
    # the edge of a quantisation step to the other side.
    between, of_int8 = (np.sqrt(np.mean((a - found[0]) ** 2)) for a in (found[1], exact))
    assert 0.0 < between < of_int8


def test_fewer_int8_layers_are_nearer_to_float32(folder: Path) -> None:
    images = toy_images(10, seed=9)
    with OnnxRuntimeSession(GraphRun().graph) as session:
        exact = session.infer(images).anomaly_map.astype(np.float64)

    def error(candidate_precision: CandidatePrecision) -> float:
        with OnnxRuntimeSession(made(folder, candidate_precision)[1].model) as session:
            return float(((session.infer(images).anomaly_map - exact) ** 2).mean())

    assert 0.0 < error("fp16") < error("int8-sensitive-fp16") < error("int8") / 2


def test_the_tail_is_float32_and_the_layers_before_it_are_float16(folder: Path) -> None:
    found = types_of(made(folder, "fp16-fp32-tail")[0])
    # The features are `teacher` and `student`. Their last convolutions and the image stay float32.
    for name in ("normalised", "conv_t", "teacher", "up", "student", "anomaly_map"):
        assert found[name] == TensorProto.FLOAT, name
    for name in ("image", "down", "embedding", "main", "sum", "residual"):
        assert found[name] == TensorProto.FLOAT16, name
    without = types_of(made(folder, "fp16")[0])
    for name in ("conv_t", "teacher", "up", "student"):
        assert without[name] == TensorProto.FLOAT16, name
