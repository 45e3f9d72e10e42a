"""Time of `edgead.build` for the target `cpu`: from a run, and from a bundle to float32 and to INT8.

The model is `linear` at 128 pixels, which is trained without epochs. The build from a run is measured once, because it
takes long: almost all of its time is the export by torch. A build from a bundle starts from the graph, reads the
dataset again, sets the threshold, verifies and writes; for INT8 it also calibrates, on 24 training images and without a
cache, and converts. Training, engines of TensorRT and other backends are not measured. Run on an idle machine:
``pytest benchmarks/test_build.py``.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import edgead
from edgead.bundle import Bundle
from edgead.data.synthetic.dataset import write_dataset
from edgead.files.arguments import BuildOptions
from edgead.training.run import Run, open_run

SIZE_PX, IMAGES, HELD_OUT = 128, 32, 8


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "washer"
    write_dataset(folder, "washer", IMAGES, 0, 0, size_px=SIZE_PX)
    return folder


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("run") / "run"
    edgead.train(parts, path, method="linear", size=SIZE_PX, hold_out=HELD_OUT, accelerator="cpu")
    return open_run(path)


@pytest.fixture(scope="module")
def built(run: Run) -> list[Bundle]:
    """The bundle of the build from the run, for the builds from a bundle."""
    return []


def build_once(run: Run, built: list[Bundle]) -> Bundle:
    if not built:
        built.append(edgead.build(run, run.path.parent / "bundle", target="cpu", precision="fp32"))
    return built[0]


def test_from_run(benchmark: BenchmarkFixture, run: Run, built: list[Bundle]) -> None:
    assert not built, "this test is the first"
    bundle = benchmark.pedantic(build_once, (run, built), rounds=1)
    assert (bundle.manifest.precision, bundle.manifest.verified) == ("fp32", True)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_from_bundle(
    benchmark: BenchmarkFixture, run: Run, built: list[Bundle], parts: Path, tmp_path: Path, precision: str
) -> None:
    source, numbers = build_once(run, built), count()

    def build() -> Bundle:
        out = tmp_path / str(next(numbers))
        options = BuildOptions(target="cpu", precision=precision, data=parts)
        if precision == "int8":
            # A file of its own: a second build with the same one would not calibrate.
            options |= BuildOptions(calibrate_on="train", cache=out.with_suffix(".json"))
        return edgead.build(source, out, **options)

    bundle = benchmark.pedantic(build, rounds=3)
    benchmark.extra_info["model_bytes"] = (bundle.path / "model.onnx").stat().st_size
    assert (bundle.manifest.precision, bundle.manifest.verified) == (precision, True)
    # The held-out images of the run are found again.
    assert bundle.manifest.thresholds["washer"].n_normal == HELD_OUT
