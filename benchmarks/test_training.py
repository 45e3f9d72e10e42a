"""Time of a short training with `edgead.train`, and of its epochs for each image.

A training has 4 epochs of 24 synthetic images of 128 pixels in batches of 8, and 8 images are held out; the teacher is
the default with the weights of its package. The time is that of one whole call: reading of images, epochs, threshold,
check for a collapse, and writing. `extra_info` has the epochs from the second on, which no first call of a library
slows down: their times are read from `metrics.json` and include the loss of the held-out images. What the model detects
is not measured, and neither is the import of torch. Run on an idle machine: ``pytest benchmarks/test_training.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import edgead
import edgead.training.start
from edgead.data.synthetic.dataset import write_dataset
from edgead.training.run import METRICS_FILE, Run

SIZE_PX, IMAGES, HELD_OUT, EPOCHS = 128, 32, 8, 4


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "washer"
    write_dataset(folder, "washer", IMAGES, 0, 0, size_px=SIZE_PX)
    return folder


@pytest.mark.parametrize("method", ["rd", "stfpm-slim"])
def test_train(benchmark: BenchmarkFixture, parts: Path, tmp_path: Path, method: str) -> None:
    def train() -> Run:
        return edgead.train(
            parts,
            tmp_path / "run",
            method=method,
            size=SIZE_PX,
            epochs=EPOCHS,
            batch_size=8,
            hold_out=HELD_OUT,
            accelerator="cpu",
        )

    # A second round would find a finished run, and not train again.
    run = benchmark.pedantic(train, rounds=1)
    rows: list[dict[str, Any]] = json.loads((run.path / METRICS_FILE).read_text(encoding="utf-8"))
    seconds = [row["seconds"] for row in rows[1:]]
    benchmark.extra_info |= {
        "epoch_s": [round(value, 3) for value in seconds],
        "epoch_ms_per_image": round(1e3 * float(np.median(seconds)) / (IMAGES - HELD_OUT), 2),
    }
    assert run.summary["trained_on"] == {"washer": IMAGES - HELD_OUT}
    assert len(rows) == EPOCHS
    assert rows[-1]["loss"] < rows[0]["loss"]
