"""Cells of a comparison as its three commands leave them, made without a training: the graph is a toy's."""

from __future__ import annotations

import json

from edgead.bundle import Manifest, write_bundle
from edgead.bundle.golden import golden_bytes
from edgead.comparison.grid import Cell
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.threshold import Threshold
from tests.helpers.brightness_bundle import write_brightness_bundle
from tests.helpers.golden_answers import golden_of_model, verification_of
from tests.helpers.parts_on_disk import SIZE_PX
from tests.helpers.toy_graph import HEIGHT, WIDTH, toy_file, toy_images

LEVEL = Threshold(0.2, 0.01, 0.95, 0.95, 299, 299)
FIGURES = {"image_auroc": 0.9, "pixel_auroc": 0.8, "aupro": 0.7, "image_f1_max": 0.6}


def write_run(cell: Cell, state: str = "finished", seconds: tuple[float, ...] = (), why: str = "") -> None:
    run = cell.folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    record = {"state": state, "config": {"training_precision": "32-true"}, "summary": {"collapse": why}}
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.json").write_text(json.dumps([{"seconds": value} for value in seconds]))


def write_results(cell: Cell, collapse: str | None = None, **figures: float | None) -> None:
    report = cell.folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    evaluation = {**FIGURES, **figures, "collapse": collapse}
    (report / "results.json").write_text(json.dumps({"evaluation": evaluation}))


def write_toy_bundle(cell: Cell) -> None:
    manifest = Manifest(
        "rd",
        "none",
        "onnxruntime",
        "cpu",
        "fp32",
        ModelSize(HEIGHT, WIDTH),
        {cell.dataset: LEVEL},
        {},
        verification_of(cell.dataset),
        verified=True,
        verified_on={},
    )
    model = toy_file()
    golden = golden_bytes(golden_of_model(model, toy_images(2)))
    write_bundle(cell.folder / "bundle", manifest, {"model.onnx": model, "golden.npz": golden})


def finish(cell: Cell, seconds: tuple[float, ...] = (30.0, 60.0), **figures: float | None) -> None:
    write_run(cell, seconds=seconds)
    write_toy_bundle(cell)
    write_results(cell, **figures)


def ready_to_evaluate(cell: Cell) -> None:
    """Trained and built: what is left is `edgead eval`, of a bundle whose model is the brightness."""
    write_run(cell)
    write_brightness_bundle(cell.folder / "bundle", ModelSize(SIZE_PX, SIZE_PX), LEVEL)
