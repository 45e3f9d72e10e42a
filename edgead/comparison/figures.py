"""The figures of a comparison: read from what the cells left, measured where a cell cannot know, averaged over seeds.

Accuracy is that of the bundles, as `edgead eval` found it. Parameters and operations are counted from the built graph.
Latency is measured by whoever puts the comparison together, one bundle after the other on one machine, because cells
may have been trained on many. A cell that collapsed or failed has no figures, so no mean holds any of it.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import Any, Literal

import numpy as np

from edgead.bundle import Bundle, open_bundle
from edgead.comparison.grid import Cell, Grid, read_json, state_of
from edgead.data import load_images, open_dataset
from edgead.errors import EdgeadError, RunError, needs_extra
from edgead.evaluation.evaluate import evaluate, score_dataset
from edgead.evaluation.report import write_report
from edgead.files.parsing import write_json
from edgead.imaging.preprocess import ModelSize
from edgead.runtime import open_session

_log = logging.getLogger(__name__)

ACCURACY = ("image_auroc", "pixel_auroc", "aupro", "image_f1_max")
COSTS = ("parameters", "gflop", "model_bytes", "latency_ms", "training_minutes")

WARM_UP = 5
LATENCY_RUNS = 30


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of a cell.

    reason: why it collapsed or failed. figures: by the names of ACCURACY and COSTS; None where a dataset cannot give
    one, nothing where the cell is not done. precision: that it was trained in.
    """

    cell: Cell
    state: Literal["done", "collapsed", "failed"]
    reason: str | None
    figures: Mapping[str, float | None]
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The nearest mean on one dataset. figures: by the names of ACCURACY. reason: why there are none."""

    dataset: str
    figures: Mapping[str, float | None]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Spread:
    """mean and sample standard deviation (divisor n - 1, None for one) of the seeds that have the figure."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One dataset and method. done, collapsed, failed: numbers of seeds. figures: over those that are done."""

    dataset: str
    method: str
    done: int
    collapsed: int
    failed: int
    figures: Mapping[str, Spread | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. machine: where the latency was measured."""

    grid: Grid
    results: tuple[CellResult, ...]
    baselines: tuple[Baseline, ...]
    machine: str

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """One for each dataset and method, in the grid's order."""
        return tuple(
            summary_of(
                dataset,
                method,
                [r for r in self.results if (r.cell.dataset, r.cell.method) == (dataset, method)],
            )
            for dataset in self.grid.datasets
            for method in self.grid.methods
        )


def collect(grid: Grid, failed: Mapping[Cell, str]) -> Comparison:
    """Read every cell, measure latencies and baselines that are not there yet.

    failed: what `run_grid` gave. A cell or baseline that cannot be read is a failed one.
    """
    machine = machine_text()
    results = tuple(_result(cell, failed.get(cell), machine) for cell in grid.cells)
    return Comparison(grid, results, tuple(_baseline(grid, name) for name in grid.datasets), machine)


def summary_of(dataset: str, method: str, results: Sequence[CellResult]) -> Summary:
    """Average the seeds of one dataset and method that are done."""
    states = [result.state for result in results]
    return Summary(
        dataset,
        method,
        states.count("done"),
        states.count("collapsed"),
        states.count("failed"),
        figures={
            name: spread_of([result.figures.get(name) for result in results if result.state == "done"])
            for name in (*ACCURACY, *COSTS)
        },
    )


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Mean and spread of the values that are there; None where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(mean(known), stdev(known) if len(known) > 1 else None)


def latency_of(bundle: Bundle) -> dict[str, float]:
    """Wall time of one image through a bundle's session, in ms: median, and 10th and 90th percentile of 30.

    From uint8 RGB at the model's size in hand to map and score; reading and resizing the image are not in it. Raises
    what `open_session` raises.
    """
    size = bundle.manifest.size
    # What the pixels are changes no latency.
    image = np.random.default_rng(0).integers(0, 256, (1, size.height_px, size.width_px, 3), np.uint8)
    taken_ms = []
    with open_session(bundle) as session:
        for _ in range(WARM_UP):
            session.infer(image)
        for _ in range(LATENCY_RUNS):
            started_at = time.perf_counter()
            session.infer(image)
            taken_ms.append(1e3 * (time.perf_counter() - started_at))
    tenths = quantiles(taken_ms, n=10)
    return {"median_ms": median(taken_ms), "p10_ms": tenths[0], "p90_ms": tenths[-1]}


def machine_text() -> str:
    """This machine's processor, and how many of its cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _result(cell: Cell, error: str | None, machine: str) -> CellResult:
    try:
        if error is not None:
            return CellResult(cell, "failed", error, {})
        run = read_json(cell.folder / "run" / "run.json", dict)
        results = read_json(cell.folder / "report" / "results.json", dict)
        if state_of(cell) == "collapsed":
            found = results["evaluation"] if results else run["summary"] if run else {}
            return CellResult(cell, "collapsed", str(found.get("collapse")), {})
        if run is None or results is None:
            return CellResult(cell, "failed", "it is not finished: give the same command again", {})
        figures = {name: results["evaluation"][name] for name in ACCURACY} | _costs(cell, machine)
        return CellResult(cell, "done", None, figures, run["config"]["training_precision"])
    except EdgeadError as problem:
        return CellResult(cell, "failed", str(problem), {})
    except (KeyError, TypeError, AttributeError) as problem:
        reason = f"{cell.folder} holds files of another edgead: remove it, and give the same command again"
        return CellResult(cell, "failed", f"{reason} ({problem!r})", {})


def _costs(cell: Cell, machine: str) -> dict[str, float | None]:
    with needs_extra("build", "edgead compare"):
        import onnx

        from edgead.export.cost import cost_of
    epochs: list[dict[str, Any]] = read_json(cell.folder / "run" / "metrics.json", list) or []
    bundle = open_bundle(cell.folder / "bundle")
    cost = cost_of(onnx.load(bundle.file("model.onnx")))
    return {
        "parameters": cost.parameters,
        "gflop": cost.flop / 1e9,
        "model_bytes": bundle.manifest.files["model.onnx"].bytes,
        "latency_ms": _latency_ms(cell, bundle, machine),
        "training_minutes": sum(row["seconds"] for row in epochs) / 60,
    }


def _latency_ms(cell: Cell, bundle: Bundle, machine: str) -> float:
    """The median, measured once for a model on a machine."""
    file = cell.folder / "latency.json"
    asked = {"machine": machine, "model_sha256": bundle.manifest.files["model.onnx"].sha256}
    known = read_json(file, dict)
    if known is None or asked.items() - known.items():
        _log.info("%s: latency of one image", cell)
        known = {**asked, **latency_of(bundle)}
        write_json(file, known)
    return float(known["median_ms"])


def _baseline(grid: Grid, dataset: str) -> Baseline:
    """The nearest mean, evaluated once; its report lies beside the cells."""
    folder = grid.out / "baseline" / dataset
    try:
        if not (folder / "results.json").is_file():
            _log.info("%s: the nearest mean", dataset)
            _evaluate_baseline(grid, dataset, folder)
        results = read_json(folder / "results.json", dict) or {}
        try:
            return Baseline(dataset, {name: results["evaluation"][name] for name in ACCURACY}, None)
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{folder / 'results.json'} is no evaluation of this edgead ({error!r}): remove {folder}, and give the "
                "same command again"
            ) from error
    except EdgeadError as problem:
        return Baseline(dataset, {}, str(problem))


def _evaluate_baseline(grid: Grid, dataset: str, folder: Path) -> None:
    with needs_extra("train", "edgead compare"):
        from edgead.comparison.nearest_mean import nearest_mean
        from edgead.training.config import TrainConfig
    data = grid.datasets[dataset]
    defaults, options = TrainConfig((str(data),)), grid.options
    teacher = options.get("teacher", defaults.teacher)
    size, samples = ModelSize.parse(options.get("size", defaults.size)), open_dataset(data)
    good = load_images(samples.train, size).images
    with nearest_mean(teacher, options.get("teacher-weights", defaults.teacher_weights), good) as session:
        scores = score_dataset(session, samples.test, size)
    details = {"model": f"nearest mean of {teacher}'s features", "data": f"{data} ({samples.layout})"}
    write_report(folder, evaluate(scores, None), scores, details)
