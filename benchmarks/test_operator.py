"""Time of the anomaly map of one 256 x 256 image from features of EfficientNet-Lite0, in three forms on the CPU.

The forms are the NumPy oracle, which computes in float64, the torch head that scores images of a run, and the head
alone as it is in `model.onnx`, on ONNX Runtime. All get the same float32 features, and each map and score must agree
with the oracle to 1e-5. The networks that make the features are not measured. `benchmarks/gpu` has the CUDA kernels.
Run on an idle machine: ``pytest benchmarks/test_operator.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.export.head.inline import without_head_function
from edgead.export.head.onnx_function import append_head
from edgead.imaging.anomaly_map import anomaly_map
from edgead.models.components.head import AnomalyMapHead
from edgead.types import Float32Array, Fusion, HeadSpec

# Channels, height and width at the strides 4, 8 and 16 of tf_efficientnet_lite0.
SHAPES = ((24, 64, 64), (40, 32, 32), (112, 16, 16))
TOLERANCE = 1e-5

Features: TypeAlias = Sequence[Float32Array]
Outputs: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]
Form: TypeAlias = Callable[[HeadSpec, Features, Features], Callable[[], Outputs]]


def numpy_form(spec: HeadSpec, teacher: Features, student: Features) -> Callable[[], Outputs]:
    return lambda: anomaly_map(teacher, student, spec.height, spec.width, spec.fusion)


def torch_form(spec: HeadSpec, teacher: Features, student: Features) -> Callable[[], Outputs]:
    head = AnomalyMapHead(spec, [(height, width) for _, height, width in SHAPES])
    t, s = [[torch.from_numpy(feature) for feature in side] for side in (teacher, student)]

    def run() -> Outputs:
        with torch.inference_mode():
            maps, scores = head(t, s)
        return maps.numpy(), scores.numpy()

    return run


def head_graph(spec: HeadSpec) -> ModelProto:
    """A graph whose inputs are the features."""
    names = [f"{side}_{k}" for side in ("teacher", "student") for k in range(len(SHAPES))]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    inputs, outputs = (
        [
            helper.make_tensor_value_info(name + end, TensorProto.FLOAT, ["N", *shape])
            for name, shape in zip(names, SHAPES * 2, strict=True)
        ]
        for end in ("", "_out")
    )
    graph = helper.make_graph(nodes, "features", inputs, outputs)
    features = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return append_head(features, spec)


def onnx_form(spec: HeadSpec, teacher: Features, student: Features) -> Callable[[], Outputs]:
    content = without_head_function(head_graph(spec)).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, [*teacher, *student], strict=True))
    return lambda: tuple(session.run(["anomaly_map", "anomaly_score"], feed))


@pytest.mark.parametrize("fusion", ["add", "multiply"])
@pytest.mark.parametrize("form", [numpy_form, torch_form, onnx_form], ids=["numpy", "torch", "onnxruntime"])
def test_anomaly_map(benchmark: BenchmarkFixture, form: Form, fusion: Fusion) -> None:
    rng = np.random.default_rng(0)
    teacher = [rng.standard_normal((1, *shape), np.float32) for shape in SHAPES]
    student = [t + 0.3 * rng.standard_normal(t.shape, np.float32) for t in teacher]
    run = form(HeadSpec(256, 256, fusion), teacher, student)
    maps, scores = benchmark.pedantic(run, rounds=50, warmup_rounds=3)
    oracle_map, oracle_score = anomaly_map(teacher, student, 256, 256, fusion)
    assert maps.shape == (1, 1, 256, 256)
    np.testing.assert_allclose(maps, oracle_map, rtol=0.0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, oracle_score, rtol=0.0, atol=TOLERANCE)
