"""Time that the golden check adds to each start of a bundle on ONNX Runtime: 8 golden images and the chart, all cores.

Weights are random, which does not change the time. `test_open` measures a complete start with the check, as in the
stream; `test_check_alone` measures the check. Neither includes reading and hashing the bundle. The target is at most
0.3 s for EfficientNet-Lite0.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.export.from_torch import onnx_from_method
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.runtime import open_session
from edgead.runtime.golden_check import check_golden
from edgead.scoring.threshold import Threshold
from tests.helpers.golden_answers import golden_of_model, verification_of

SIZE = ModelSize(256, 256)


@pytest.fixture(scope="module", params=["tf_efficientnet_lite0", "wide_resnet50_2"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    method = create_method("rd", create_teacher(request.param, "random"), SIZE, "per-position", "unaligned")
    model = onnx_from_method(method.eval(), SIZE).SerializeToString()
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    manifest = Manifest(
        method="rd",
        teacher=request.param,
        backend="onnxruntime",
        target="cpu",
        precision="fp32",
        size=SIZE,
        thresholds={"noise": Threshold(1.0, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification=verification_of("noise"),
        verified=True,
        verified_on={},
    )
    files = {"model.onnx": model, "golden.npz": golden_bytes(golden_of_model(model, images))}
    return write_bundle(tmp_path_factory.mktemp("bundle") / "b", manifest, files)


def _rounds(bundle: Bundle) -> dict[str, int]:
    return {"rounds": 3 if bundle.manifest.teacher == "wide_resnet50_2" else 15, "warmup_rounds": 1}


def test_open(benchmark: BenchmarkFixture, bundle: Bundle) -> None:
    benchmark.pedantic(lambda: open_session(bundle).close(), **_rounds(bundle))


def test_check_alone(benchmark: BenchmarkFixture, bundle: Bundle) -> None:
    with open_session(bundle) as session:
        benchmark.pedantic(check_golden, (session, bundle), **_rounds(bundle))
