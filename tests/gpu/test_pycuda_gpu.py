"""The example in docs/pycuda.md, run as it stands there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_graph import HEIGHT, WIDTH, toy_graph

from edgead.runtime.onnxruntime import OnnxRuntimeSession

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example() -> str:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/pycuda.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "ModelSize(256, 256)" in code
    # The size of the toy model, and the answers as a file.
    code = code.replace("ModelSize(256, 256)", f"ModelSize({HEIGHT}, {WIDTH})")
    return code + '\nnp.savez("found.npz", pictures=pictures, maps=prediction.anomaly_map)\n'


def test_the_example_scores_what_lies_on_the_gpu(backend, build, example, tmp_path):
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed: pip install pycuda, with the CUDA toolkit")
    engine = build(backend, toy_graph())
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "model.engine").write_bytes(engine.built.path.read_bytes())
    (folder / "engine.json").write_text(engine.built.record.to_json())
    # In a process of its own, because importing pycuda.autoprimaryctx pushes a context for good.
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
        expected = session.infer(found["pictures"]).anomaly_map
    np.testing.assert_allclose(found["maps"], expected, atol=1e-4)
