"""Time that the golden check adds to each start of a bundle on ONNX Runtime: 8 golden images and the chart, all cores.

Weights are random, which does not change the time. `test_open` measures a complete start with the check, as in the
stream; `test_check_alone` measures the check. Neither includes reading and hashing the bundle. The target is at most
0.3 s for EfficientNet-Lite0.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.random_bundle import write_random_bundle
from edgead.bundle import Bundle
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session
from edgead.runtime.golden_check import check_golden

SIZE = ModelSize(256, 256)


@pytest.fixture(scope="module", params=["tf_efficientnet_lite0", "wide_resnet50_2"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "b", request.param, SIZE)


def _rounds(bundle: Bundle) -> dict[str, int]:
    return {"rounds": 3 if bundle.manifest.teacher == "wide_resnet50_2" else 15, "warmup_rounds": 1}


def test_open(benchmark: BenchmarkFixture, bundle: Bundle) -> None:
    benchmark.pedantic(lambda: open_session(bundle).close(), **_rounds(bundle))


def test_check_alone(benchmark: BenchmarkFixture, bundle: Bundle) -> None:
    with open_session(bundle) as session:
        benchmark.pedantic(check_golden, (session, bundle), **_rounds(bundle))
