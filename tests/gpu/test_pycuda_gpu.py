"""The example in docs/pycuda.md, run unchanged."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgead.bundle import Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring.threshold import Threshold
from tests.helpers.golden_answers import golden_of
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_graph, toy_images

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example() -> str:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/pycuda.md").read_text(), re.MULTILINE | re.DOTALL
    )
    # The last line writes the answers to a file.
    return code + '\nnp.savez("found.npz", images=images, maps=prediction.anomaly_map)\n'


def write_toy_bundle(path: Path, backend: str, engine) -> None:
    """The bundle of an engine, with the answers of ONNX Runtime."""
    images = toy_images(2)
    with OnnxRuntimeSession(engine.graph) as session:
        golden = golden_of(session.infer, images)
    limits = {"map_error_max": 1e-6, "score_error_max": 1e-6, "decision_flips_max": 0, "factors": 1}
    manifest = Manifest(
        method="toy",
        teacher="none",
        backend=backend,
        target="gpu-tests",
        precision="fp32",
        size=ModelSize(HEIGHT, WIDTH),
        thresholds={"washer": Threshold(1e3, 0.01, 0.95, 0.96, 320, 299)},
        training={},
        verification={"parts": {"washer": {"limits": limits, "n": len(images)}}},
        verified=True,
        verified_on={},
    )
    files = {
        "model.onnx": engine.graph,
        "model.engine": engine.built.path,
        "engine.json": engine.built.record.to_json().encode(),
        "golden.npz": golden_bytes(golden),
    }
    write_bundle(path, manifest, files)


def test_the_example_scores_images_on_the_gpu(backend, build, example, tmp_path):
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed: pip install pycuda, with the CUDA toolkit")
    engine = build(backend, toy_graph())
    write_toy_bundle(tmp_path / "engines" / "my-parts", backend, engine)
    # In a process of its own, because importing pycuda.autoprimaryctx pushes a context permanently.
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"map (1, {HEIGHT}, {WIDTH})") == 2
    found = np.load(tmp_path / "found.npz")
    with OnnxRuntimeSession(engine.graph) as session:
        expected = session.infer(found["images"]).anomaly_map
    np.testing.assert_allclose(found["maps"], expected, atol=1e-4)
