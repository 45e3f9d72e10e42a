"""The exported head on ONNX Runtime against two oracles: edgead.imaging.anomaly_map, and SciPy with torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, inliner
from scipy.ndimage import gaussian_filter

from edgead.export.head.onnx_function import append_head, head_function
from edgead.imaging.anomaly_map import anomaly_map
from edgead.types import HeadSpec

TOLERANCE = 1e-5


def feature_graph(
    shapes: Sequence[tuple[int, int, int]], dtype: type[np.generic], batch: Any = "N"
) -> ModelProto:
    """A graph whose features are its inputs, so that the head can be fed anything."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = [f"{role}{k}" for role in ("t", "s") for k in range(len(shapes))]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
            "features",
            [
                helper.make_tensor_value_info(name, element, [batch, *shape])
                for name, shape in zip(names, [*shapes, *shapes], strict=True)
            ],
            [
                helper.make_tensor_value_info(f"{name}_out", element, [batch, *shape])
                for name, shape in zip(names, [*shapes, *shapes], strict=True)
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def run(model: ModelProto, teacher: Sequence[np.ndarray], student: Sequence[np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(["anomaly_map", "anomaly_score"], dict(zip(names, [*teacher, *student], strict=True)))


def features(
    shapes: Sequence[tuple[int, int, int]],
    batch: int = 2,
    dtype: type[np.generic] = np.float32,
    seed: int = 0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    teacher = [rng.standard_normal((batch, *shape)) for shape in shapes]
    # A student near its teacher, like a trained one, except in one corner.
    student = [t + 0.3 * rng.standard_normal(t.shape) for t in teacher]
    for s in student:
        s[:, :, : max(1, s.shape[2] // 4), : max(1, s.shape[3] // 4)] *= -1.0
    return [t.astype(dtype) for t in teacher], [s.astype(dtype) for s in student]


def scipy_definition(
    teacher: Sequence[np.ndarray], student: Sequence[np.ndarray], spec: HeadSpec
) -> tuple[np.ndarray, np.ndarray]:
    """The published evaluation: torch's cosine and bilinear resize, SciPy's Gaussian, in float64."""
    fused: Any = 0.0 if spec.fusion == "add" else 1.0
    for t, s, weight in zip(teacher, student, spec.weights or [1.0] * len(teacher), strict=True):
        distance = 1.0 - torch.nn.functional.cosine_similarity(
            torch.from_numpy(t).double(), torch.from_numpy(s).double(), dim=1, eps=1e-8
        )
        resized = torch.nn.functional.interpolate(
            weight * distance[:, None],
            size=(spec.height, spec.width),
            mode="bilinear",
            align_corners=spec.align_corners,
        )
        fused = fused + resized.numpy() if spec.fusion == "add" else fused * resized.numpy()
    smooth = np.stack([gaussian_filter(m[0], sigma=spec.sigma) if spec.sigma else m[0] for m in fused])[
        :, None
    ]
    return smooth, smooth.max(axis=(1, 2, 3))


SIZES = {
    "256": (256, 256, [(24, 64, 64), (40, 32, 32), (112, 16, 16)]),
    "odd": (97, 131, [(5, 25, 33), (7, 13, 17)]),
    "wide": (64, 224, [(6, 16, 56), (8, 8, 28), (10, 4, 14), (12, 2, 7)]),
    "tall": (161, 32, [(3, 41, 8)]),
    "smaller than the kernel": (9, 7, [(4, 3, 2), (4, 1, 1)]),
    "smaller than the features": (16, 20, [(4, 32, 40)]),
}


@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize("size", SIZES)
def test_head_equals_the_oracle_and_scipy(size: str, fusion: Any) -> None:
    height, width, shapes = SIZES[size]
    spec = HeadSpec(height, width, fusion)
    teacher, student = features(shapes)
    found_map, found_score = run(append_head(feature_graph(shapes, np.float32), spec), teacher, student)
    assert found_map.shape == (2, 1, height, width)
    assert found_score.shape == (2,)
    assert found_map.dtype == found_score.dtype == np.float32
    for oracle in (
        anomaly_map(teacher, student, height, width, fusion),
        scipy_definition(teacher, student, spec),
    ):
        np.testing.assert_allclose(found_map, oracle[0], rtol=0.0, atol=TOLERANCE)
        np.testing.assert_allclose(found_score, oracle[1], rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("weights", [(), (0.25, 3.0)])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.5, 11.0])
def test_every_attribute_reaches_the_map(
    fusion: Any, align_corners: bool, sigma: float, weights: tuple[float, ...]
) -> None:
    shapes = [(5, 8, 12), (6, 4, 6)]
    spec = HeadSpec(32, 48, fusion, sigma, align_corners, weights)
    teacher, student = features(shapes)
    found_map, found_score = run(append_head(feature_graph(shapes, np.float32), spec), teacher, student)
    expected_map, expected_score = scipy_definition(teacher, student, spec)
    np.testing.assert_allclose(found_map, expected_map, rtol=0.0, atol=TOLERANCE)
    np.testing.assert_allclose(found_score, expected_score, rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_float16_features_are_computed_in_float32(count: int) -> None:
    shapes = [(64, 16, 16), (32, 8, 8), (16, 4, 4), (8, 2, 2)][:count]
    teacher, student = features(shapes, dtype=np.float16)
    # The square of 60000 and a sum of 64 of them are far beyond float16's 65504.
    teacher[0][:, :, 0, 0] = 60000.0
    student[0][:, :, 0, 0] = -60000.0
    spec = HeadSpec(64, 64)
    found_map, _ = run(append_head(feature_graph(shapes, np.float16), spec), teacher, student)
    expected_map, _ = scipy_definition(teacher, student, spec)
    np.testing.assert_allclose(found_map, expected_map, rtol=0.0, atol=TOLERANCE)


def test_a_zero_vector_is_at_distance_one() -> None:
    shapes = [(4, 8, 8)]
    teacher, student = features(shapes)
    teacher[0][:] = 0.0
    student[0][1] = 0.0
    found_map, found_score = run(
        append_head(feature_graph(shapes, np.float32), HeadSpec(32, 32)), teacher, student
    )
    np.testing.assert_allclose(found_map, 1.0, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(found_score, 1.0, rtol=0.0, atol=1e-6)


def test_equal_features_give_nothing() -> None:
    shapes = [(24, 8, 8), (40, 4, 4)]
    teacher, _ = features(shapes)
    _, found_score = run(append_head(feature_graph(shapes, np.float32), HeadSpec(32, 32)), teacher, teacher)
    np.testing.assert_allclose(found_score, 0.0, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_image_of_a_batch_is_scored_alone(batch: int) -> None:
    shapes = [(4, 8, 8), (6, 4, 4)]
    model = append_head(feature_graph(shapes, np.float32), HeadSpec(32, 32, "multiply"))
    teacher, student = features(shapes, batch)
    found_map, found_score = run(model, teacher, student)
    for i in range(batch):
        alone = run(model, [t[i : i + 1] for t in teacher], [s[i : i + 1] for s in student])
        np.testing.assert_allclose(found_map[i : i + 1], alone[0], rtol=0.0, atol=1e-6)
        np.testing.assert_allclose(found_score[i : i + 1], alone[1], rtol=0.0, atol=1e-6)


def test_the_attributes_of_the_node_define_the_operator() -> None:
    shapes = [(4, 8, 12)]
    model = append_head(feature_graph(shapes, np.float32), HeadSpec(32, 48, "multiply", 2.5, False))
    (node,) = [node for node in model.graph.node if node.domain == "edgead"]
    assert node.op_type == "AnomalyMap"
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {
        "height": 32,
        "width": 48,
        "fusion": b"multiply",
        "sigma": 2.5,
        "align_corners": 0,
    }
    assert list(node.input) == ["t0_out", "s0_out"]
    (function,) = model.functions
    assert list(function.input) == ["teacher_1", "student_1"]
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18, "edgead": 1}


def test_the_function_can_be_inlined_into_standard_operators() -> None:
    shapes = [(4, 8, 8), (6, 4, 4)]
    model = append_head(feature_graph(shapes, np.float32), HeadSpec(32, 32))
    inlined = inliner.inline_local_functions(model)
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} <= {"", "ai.onnx"}
    teacher, student = features(shapes)
    for found, expected in zip(run(inlined, teacher, student), run(model, teacher, student), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_batch_dimension_keeps_its_name_and_the_features_are_left_alone() -> None:
    shapes = [(4, 8, 8)]
    before = feature_graph(shapes, np.float32, batch="images")
    copy = ModelProto()
    copy.CopyFrom(before)
    model = append_head(before, HeadSpec(32, 32))
    assert before == copy
    dimensions = [
        [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
        for output in model.graph.output
    ]
    assert dimensions == [["images", 1, 32, 32], ["images"]]
    fixed = append_head(feature_graph(shapes, np.float32, batch=3), HeadSpec(32, 32))
    assert fixed.graph.output[1].type.tensor_type.shape.dim[0].dim_value == 3


def test_graphs_without_pairs_of_features_are_refused() -> None:
    spec = HeadSpec(32, 32)
    with pytest.raises(ValueError, match="scale"):
        head_function(spec, [])
    unpaired = feature_graph([(4, 8, 8)], np.float32)
    unpaired.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ValueError, match=r"\(5, 8, 8\)"):
        append_head(unpaired, spec)
    lonely = feature_graph([(4, 8, 8), (4, 4, 4)], np.float32)
    del lonely.graph.output[3]
    with pytest.raises(ValueError, match=r"\(4, 4, 4\)"):
        append_head(lonely, spec)
    empty = feature_graph([], np.float32)
    with pytest.raises(ValueError, match=r"\[\]"):
        append_head(empty, spec)
    free = feature_graph([(4, 8, 8)], np.float32)
    free.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("t0_out", TensorProto.FLOAT, ["N", 4, "height", "width"])
    )
    with pytest.raises(ValueError, match="t0_out"):
        append_head(free, spec)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"height": 0}, "0x32"),
        ({"width": -1}, "32x-1"),
        ({"fusion": "mean"}, "'mean'"),
        ({"sigma": -1.0}, "-1.0"),
        ({"sigma": float("nan")}, "nan"),
        ({"sigma": float("inf")}, "inf"),
        ({"weights": (1.0, 0.0)}, "0.0"),
        ({"weights": (float("inf"),)}, "inf"),
        ({"weights": (float("nan"), 1.0)}, "nan"),
    ],
)
def test_a_spec_refuses_values_that_give_no_map(change: dict[str, Any], value: str) -> None:
    with pytest.raises(ValueError, match=value):
        HeadSpec(**{"height": 32, "width": 32, **change})
