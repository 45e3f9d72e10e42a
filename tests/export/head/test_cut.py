"""The graph without its head: its outputs, the record of the head, and that both together equal the whole graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper

from edgead.errors import BackendError
from edgead.export.head.cut import features_of
from edgead.export.head.inline import without_head_function
from edgead.export.head.onnx_function import append_head
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.anomaly_map import anomaly_map
from edgead.runtime.tensorrt.feature_record import FeatureRecord
from edgead.types import HeadSpec
from tests.helpers.int8_graph import int8_graph
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

SPEC = HeadSpec(64, 48, "multiply", 2.5, False, (0.5, 2.0))
SHAPES = ((8, 16, 12), (16, 8, 6))


def two_scales(halves: tuple[str, ...] = (), spec: HeadSpec = SPEC) -> ModelProto:
    """A graph of Relu features and the head; inputs named in `halves` are float16."""
    names = [f"{side}{k}" for side in "ts" for k in range(2)]
    elements = [onnx.TensorProto.FLOAT16 if name in halves else onnx.TensorProto.FLOAT for name in names]
    values = [
        [
            helper.make_tensor_value_info(name + suffix, element, ["N", *shape])
            for name, element, shape in zip(names, elements, 2 * SHAPES, strict=True)
        ]
        for suffix in ("", "_f")
    ]
    nodes = [helper.make_node("Relu", [name], [f"{name}_f"]) for name in names]
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(helper.make_graph(nodes, "two", *values), opset_imports=opsets, ir_version=9)
    return append_head(model, spec)


def run(model: ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def feed_for(model: ModelProto, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        value.name: rng.standard_normal((batch, *shape)).astype(
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value, shape in zip(model.graph.input, 2 * SHAPES, strict=True)
    }


def headed(record: FeatureRecord, features: dict[str, np.ndarray]) -> np.ndarray:
    """The float64 oracle's map from an engine's outputs, with only their names and the record."""
    teacher, student = (
        [features[f"{side}_features_{k + 1}"] for k in range(len(record.shapes))]
        for side in ("teacher", "student")
    )
    head = record.head
    return anomaly_map(
        teacher, student, head.height, head.width, head.fusion, head.sigma, head.align_corners, head.weights
    )[0]


def int8(model: ModelProto) -> ModelProto:
    return int8_graph(model, toy_images(2))


@pytest.mark.parametrize(
    ("halves", "dtype"),
    [((), "float32"), (("t0", "t1", "s0", "s1"), "float16"), (("t1", "s0"), "float32")],
    ids=["float32", "float16", "mixed"],
)
@pytest.mark.parametrize("fusion", ["add", "multiply"])
def test_features_and_head_are_the_whole(halves, dtype, fusion):
    model = two_scales(halves, HeadSpec(64, 48, fusion, 2.5, False, (0.5, 2.0)))
    cut, record = features_of(model)
    onnx.checker.check_model(cut, full_check=True)
    assert record == FeatureRecord(dtype, SHAPES, HeadSpec(64, 48, fusion, 2.5, False, (0.5, 2.0)))
    feed = feed_for(model, 3)
    outputs = run(cut, feed)
    assert [(name, str(value.dtype), value.shape) for name, value in outputs.items()] == [
        (spec.name, spec.dtype, (3, *spec.shape[1:])) for spec in record.outputs
    ]
    np.testing.assert_allclose(headed(record, outputs), run(model, feed)["anomaly_map"], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "dtype", "tolerance"),
    # ONNX Runtime computes float16 in float32, and drops the rounding between nodes that it fuses, except at outputs.
    [
        (lambda model: model, "float32", 1e-5),
        (float16_from_float32, "float16", 1e-3),
        (int8, "float32", 1e-5),
    ],
    ids=["fp32", "fp16", "int8"],
)
def test_every_precision_is_cut_at_the_head(change, dtype, tolerance):
    model = change(toy_graph())
    cut, record = features_of(model)
    assert record == FeatureRecord(dtype, ((8, HEIGHT // 4, WIDTH // 4),), HeadSpec(HEIGHT, WIDTH, sigma=1.0))
    feed = {"images": toy_images(2)}
    outputs = run(without_head_function(cut), feed)
    np.testing.assert_allclose(headed(record, outputs), run(model, feed)["anomaly_map"], atol=tolerance)


def test_nothing_of_the_head_is_left_and_the_graph_that_was_given_is_kept():
    model = toy_graph()
    before = model.SerializeToString(deterministic=True)
    cut = without_head_function(features_of(model)[0])
    assert model.SerializeToString(deterministic=True) == before
    assert not cut.functions
    assert {node.domain for node in cut.graph.node} == {""}
    assert [opset.domain for opset in cut.opset_import] == [""]


def test_a_graph_without_a_head_is_refused():
    model = toy_graph()
    del model.graph.node[-1]
    with pytest.raises(BackendError, match="edgead::AnomalyMap"):
        features_of(model)


def test_a_head_beyond_the_kernels_is_refused():
    with pytest.raises(BackendError) as refusal:
        features_of(two_scales(spec=HeadSpec(64, 48, sigma=33.0)))
    assert "sigma" in refusal.value.what
    assert "33.0" in refusal.value.what
    assert "--head standard" in (refusal.value.hint or "")


def test_features_that_are_not_pairs_are_refused():
    model = two_scales()
    head = model.graph.node[-1]
    head.input[2], head.input[3] = head.input[3], head.input[2]
    with pytest.raises(BackendError, match=r"\(8, 16, 12\)"):
        features_of(model)


def test_features_of_open_sizes_are_refused():
    model = two_scales()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(BackendError, match="t0_f"):
        features_of(model)
