"""The Triton client of docs/export.md runs, and decides as the bundle does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

import edgead
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.other_runtimes.triton import export_triton
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle

PAGE = Path(__file__).parents[2] / "docs/export.md"
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


class Input:
    """Of tritonclient, which refuses an array of another shape or type."""

    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self.name, self._shape, self._datatype = name, shape, datatype

    def set_data_from_numpy(self, values: np.ndarray) -> None:
        assert (list(values.shape), values.dtype.name.upper()) == (self._shape, self._datatype)
        self.values = values


class Server:
    """A server of the model repository `models`: its score has a dimension beside the batch."""

    def __init__(self, url: str) -> None:
        assert url

    def infer(self, model: str, inputs: list[Input]) -> SimpleNamespace:
        session = onnxruntime.InferenceSession(
            Path("models") / model / "1/model.onnx", providers=["CPUExecutionProvider"]
        )
        (images,) = inputs
        maps, scores = session.run(["anomaly_map", "anomaly_score"], {images.name: images.values})
        return SimpleNamespace(as_numpy={"anomaly_map": maps, "anomaly_score": scores[:, None]}.get)


@pytest.mark.parametrize("view", [View(), View(fit="pad"), View(overlap=8)], ids=["whole", "padded", "tiles"])
def test_the_example_decides_as_the_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, view: View):
    threshold = Threshold(0.5, 0.01, 0.95, 0.95, 299, 299)
    bundle = write_brightness_bundle(
        tmp_path / "engines/my-parts", ModelSize(32, 64), {"my-part": threshold}, view=view
    )
    image = np.random.default_rng(0).integers(0, 200, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    monkeypatch.chdir(tmp_path)
    export_triton(edgead.open_bundle(bundle), Path("models"))
    client = ModuleType("tritonclient.http")
    vars(client).update(InferInput=Input, InferenceServerClient=Server)
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    monkeypatch.setitem(sys.modules, "tritonclient.http", client)
    vars(sys.modules["tritonclient"])["http"] = client
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, str(PAGE), "exec"), names)
    with edgead.load(bundle) as model:
        result = model.predict("image.png")
    assert names["score"] == pytest.approx(result.anomaly_score, abs=1e-6)
    assert names["is_anomalous"] == result.is_anomalous
