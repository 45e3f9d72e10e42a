"""Latency of one 256 x 256 image, from uint8 pixels to map and score, on ONNX Runtime with all cores.

Weights are random and INT8 is calibrated on noise, which does not change the latency. The latency includes the checks
of the session, cast and normalisation, teacher, student and head. It does not include capture, decoding and resizing.
Run on an idle machine: ``pytest benchmarks/test_inference.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.engine.fidelity import Precision
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision.calibration import calibrate
from edgead.export.precision.equalize import equalised
from edgead.export.precision.float16 import float16_from_float32
from edgead.export.precision.quantize import int8_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.base import Alignment
from edgead.models.components.teacher import create_teacher
from edgead.runtime.onnxruntime import OnnxRuntimeSession

SIZE = ModelSize(256, 256)


@pytest.mark.parametrize(
    ("teacher", "alignment", "precision", "rounds"),
    [
        ("tf_efficientnet_lite0", "unaligned", "fp32", 200),
        ("tf_efficientnet_lite0", "unaligned", "fp16", 200),
        ("tf_efficientnet_lite0", "unaligned", "int8", 200),
        ("tf_efficientnet_lite0", "aligned", "fp32", 200),
        ("wide_resnet50_2", "unaligned", "fp32", 20),
    ],
)
def test_one_image(
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    teacher: str,
    alignment: Alignment,
    precision: Precision,
    rounds: int,
) -> None:
    torch.manual_seed(0)
    method = create_method("rd", create_teacher(teacher, "random"), SIZE, "per-position", alignment).eval()
    graph = onnx_from_method(method, SIZE)
    parameters = sum(parameter.numel() for parameter in method.parameters())
    del method
    batch = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    if precision == "fp16":
        graph = float16_from_float32(graph)
    if precision == "int8":
        calibration = calibrate(graph, batch, "minmax")
        equal = equalised(graph, calibration.channel_maxima)
        graph = int8_from_float32(equal, calibration.clipping_limits)
    model = tmp_path / "model.onnx"
    model.write_bytes(graph.SerializeToString())
    with OnnxRuntimeSession(model) as session:
        prediction = benchmark.pedantic(
            session.infer, (batch,), rounds=rounds, warmup_rounds=max(2, rounds // 10)
        )
    milliseconds = 1e3 * np.array(benchmark.stats.stats.data)
    benchmark.extra_info |= {
        "parameters": parameters,
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
    }
    assert np.isfinite(prediction.anomaly_score).all()
