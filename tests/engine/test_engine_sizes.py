"""The engine of a real model is smaller in a lower precision; otherwise it would have kept its 32-bit weights.

The bounds follow from the bytes of a weight, not from a measurement: half, and a quarter with room for the kernels.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgead.bundle import Manifest, open_bundle, write_bundle
from edgead.engine.request import EngineRequest
from edgead.engine.settings import BatchProfile, TensorRTSettings
from edgead.engine.tensorrt_build import BuiltEngine, build_engine
from edgead.errors import BackendError
from edgead.export.from_torch import onnx_from_method
from edgead.export.precision.float16 import float16_from_float32
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.runtime import open_session
from edgead.scoring.threshold import Threshold
from tests.helpers.int8_graph import int8_graph
from tests.helpers.no_gpu import gpu_error
from tests.helpers.tensorrt_rtx_here import needs_no_gpu, needs_tensorrt_rtx

pytestmark = [needs_tensorrt_rtx, needs_no_gpu]


def engine_bytes(teacher: str, size: ModelSize, directory: Path) -> dict[str, int]:
    """Bytes of the engine of RD with random weights, by precision."""
    method = create_method("rd", create_teacher(teacher, "random"), size, "per-position", "unaligned").eval()
    exact = onnx_from_method(method, size)
    del method
    noise = np.random.default_rng(0).integers(0, 256, (2, size.height_px, size.width_px, 3), np.uint8)
    found = {}
    for precision, convert in {
        "fp32": lambda: exact,
        "fp16": lambda: float16_from_float32(exact),
        "int8": lambda: float16_from_float32(int8_graph(exact, noise)),
    }.items():
        model = directory / "model.onnx"
        model.write_bytes(convert().SerializeToString())
        built = build_engine(
            model,
            EngineRequest(
                backend="tensorrt-rtx",
                precision=precision,
                target="sizes",
                batch=BatchProfile(1, 1, 4),
                settings=TensorRTSettings(compute_capabilities=("8.6", "8.9", "12.0")),
                gpu=None,
            ),
            directory=directory / "engine",
            timing_caches=directory,
        )
        found[precision] = built.path.stat().st_size
        layers = json.loads(built.layers or "")["Layers"]
        types = {
            layer["Inputs"][0]["Datatype"]
            for layer in layers
            if layer["LayerType"] in ("correlation", "deconv")
        }
        # Depthwise and transposed convolutions are not INT8, and no convolution is float32 beside it.
        assert types == {"fp32": {"Float"}, "fp16": {"Half"}, "int8": {"Half", "Int8"}}[precision]
        refused_without_a_gpu(built, model, precision, teacher, size, directory / "bundle")
    return found


def refused_without_a_gpu(
    built: BuiltEngine, model: Path, precision: str, teacher: str, size: ModelSize, place: Path
) -> None:
    """Install an engine in a bundle and open it: every check passes except the one for a driver."""
    manifest = Manifest(
        method="rd",
        teacher=teacher,
        backend="tensorrt-rtx",
        target="rtx-desktop",
        precision=precision,
        size=size,
        thresholds={"washer": Threshold(0.5, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification={},
        verified=False,
        verified_on={},
    )
    record = built.record.to_json().encode()
    bundle = write_bundle(
        place, manifest, {"model.onnx": model, "model.engine": built.path, "engine.json": record}
    )
    with pytest.raises(BackendError) as caught:
        open_session(open_bundle(bundle.path))
    assert str(caught.value) == str(gpu_error())


def test_lite0(tmp_path):
    sizes = engine_bytes("tf_efficientnet_lite0", ModelSize(64, 64), tmp_path)
    # 18 MB of weights in float32. With 8 bits the source of the 55 kernels is as large as the weights.
    assert 0.5 <= sizes["fp16"] / sizes["fp32"] <= 0.6
    assert 0.25 <= sizes["int8"] / sizes["fp32"] <= 0.8


def test_resnet18(tmp_path):
    sizes = engine_bytes("resnet18", ModelSize(64, 64), tmp_path)
    assert 0.5 <= sizes["fp16"] / sizes["fp32"] <= 0.55
    # The transposed convolutions have 16 bits.
    assert 0.25 <= sizes["int8"] / sizes["fp32"] <= 0.4
