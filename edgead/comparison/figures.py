"""Figures of a comparison: read from the files of the cells, completed with latencies, and averaged over seeds.

Accuracy is the accuracy of the bundles, as `edgead eval` measured it. Parameters and operations are counted from the
built graph. Latency is measured when the figures are collected, one bundle after the other on one machine, because the
cells may have been trained on many machines. A collapsed or failed cell has no figures, so no mean includes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from edgead.bundle import open_bundle
from edgead.comparison.grid import Cell, Grid, read_json, state_of
from edgead.comparison.latency import latency_ms, machine_text
from edgead.data import load_images, open_dataset
from edgead.errors import EdgeadError, RunError, needs_extra
from edgead.evaluation.dataset_scores import score_dataset
from edgead.evaluation.evaluate import evaluate
from edgead.evaluation.report import write_report
from edgead.imaging.preprocess import ModelSize

_log = logging.getLogger(__name__)

ACCURACY = ("image_auroc", "pixel_auroc", "aupro", "image_f1_max")
COSTS = ("parameters", "gflop", "model_bytes", "latency_ms", "training_minutes")


@dataclass(frozen=True, slots=True)
class CellResult:
    """Result of a cell.

    Attributes:
        cell: The cell.
        state: State of the cell.
        reason: Reason why it collapsed or failed; None if it is done.
        figures: Figures by the names of ACCURACY and COSTS. A figure is None if the dataset does not allow it. The
            mapping is empty if the cell is not done.
        precision: Precision of the training; None if the cell is not done.
    """

    cell: Cell
    state: Literal["done", "collapsed", "failed"]
    reason: str | None
    figures: Mapping[str, float | None]
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """Result of the nearest mean on one dataset.

    Attributes:
        dataset: Name of the dataset.
        figures: Figures by the names of ACCURACY; empty if the baseline failed.
        reason: Reason why the baseline failed, or None.
    """

    dataset: str
    figures: Mapping[str, float | None]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and spread of a figure over the seeds that have it.

    Attributes:
        mean: Mean.
        deviation: Sample standard deviation (divisor n - 1); None for one seed.
    """

    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of one method on one dataset.

    Attributes:
        dataset: Name of the dataset.
        method: Name of the method.
        done: Number of seeds that are done.
        collapsed: Number of collapsed seeds.
        failed: Number of failed seeds.
        figures: Mean and spread over the seeds that are done, by the names of ACCURACY and COSTS; None if no seed has
            the figure.
    """

    dataset: str
    method: str
    done: int
    collapsed: int
    failed: int
    figures: Mapping[str, Spread | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results of all cells and baselines.

    Attributes:
        grid: Grid of the comparison.
        results: Results of the cells, in the order of the grid.
        baselines: Results of the nearest mean, one for each dataset.
        machine: Description of the machine that measured the latency.
    """

    grid: Grid
    results: tuple[CellResult, ...]
    baselines: tuple[Baseline, ...]
    machine: str

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Summaries of each dataset and method, in the order of the grid."""
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
    """Read the results of all cells, and measure missing latencies and baselines.

    A cell or baseline that cannot be read counts as failed.

    Args:
        grid: Grid of the comparison.
        failed: Error of each failed cell, as `run_grid` returned it.

    Returns:
        Results of all cells and baselines.
    """
    machine = machine_text()
    results = tuple(_result(cell, failed.get(cell), machine) for cell in grid.cells)
    return Comparison(grid, results, tuple(_baseline(grid, name) for name in grid.datasets), machine)


def summary_of(dataset: str, method: str, results: Sequence[CellResult]) -> Summary:
    """Average over the seeds of one method on one dataset.

    Args:
        dataset: Name of the dataset.
        method: Name of the method.
        results: Results of the seeds. Only those that are done enter the mean.

    Returns:
        Summary with the number of seeds in each state.
    """
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
    """Compute mean and spread of the values that are not None.

    Args:
        values: Values of a figure, one for each seed.

    Returns:
        Mean and spread, or None if all values are None.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(mean(known), stdev(known) if len(known) > 1 else None)


def _result(cell: Cell, error: str | None, machine: str) -> CellResult:
    """Result of a cell, read from its files; `error` is the error of its commands."""
    try:
        if error is not None:
            return CellResult(cell, "failed", error, {})
        run = read_json(cell.folder / "run" / "run.json", dict)
        results = read_json(cell.folder / "report" / "results.json", dict)
        if state_of(cell) == "collapsed":
            found = results["evaluation"] if results else run["summary"] if run else {}
            return CellResult(cell, "collapsed", str(found.get("collapse")), {})
        if run is None or results is None:
            return CellResult(cell, "failed", "it is not finished: run the same command again", {})
        figures = {name: results["evaluation"][name] for name in ACCURACY} | _costs(cell, machine)
        return CellResult(cell, "done", None, figures, run["config"]["training_precision"])
    except EdgeadError as problem:
        return CellResult(cell, "failed", str(problem), {})
    except (KeyError, TypeError, AttributeError) as problem:
        reason = f"{cell.folder} holds files of another edgead: remove it and run the same command again"
        return CellResult(cell, "failed", f"{reason} ({problem!r})", {})


def _costs(cell: Cell, machine: str) -> dict[str, float | None]:
    """Figures by the names of COSTS."""
    with needs_extra("build", "edgead compare"):
        from edgead.export.cost import cost_of
        from edgead.export.head.model_file import graph_from_file
    epochs: list[dict[str, Any]] = read_json(cell.folder / "run" / "metrics.json", list) or []
    bundle = open_bundle(cell.folder / "bundle")
    cost = cost_of(graph_from_file(bundle.graph()))
    return {
        "parameters": cost.parameters,
        "gflop": cost.flop / 1e9,
        "model_bytes": bundle.manifest.files["model.onnx"].bytes,
        "latency_ms": latency_ms(cell, bundle, machine),
        "training_minutes": sum(row["seconds"] for row in epochs) / 60,
    }


def _baseline(grid: Grid, dataset: str) -> Baseline:
    """Result of the nearest mean, which is evaluated once; its report is beside the cells."""
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
                f"{folder / 'results.json'} is no evaluation of this edgead ({error!r})",
                hint=f"remove {folder} and run the same command again",
            ) from error
    except EdgeadError as problem:
        return Baseline(dataset, {}, str(problem))


def _evaluate_baseline(grid: Grid, dataset: str, folder: Path) -> None:
    """Evaluate the nearest mean and write its report."""
    with needs_extra("train", "edgead compare"):
        from edgead.comparison.nearest_mean import nearest_mean
        from edgead.training.config import TrainConfig
    data = grid.datasets[dataset]
    defaults, options = TrainConfig((str(data),)), grid.options
    teacher = options.get("teacher", defaults.teacher)
    size, samples = ModelSize.parse(options.get("size", defaults.size)), open_dataset(data)
    if "bit-depth" in options:
        samples = samples.read_as(int(options["bit-depth"]))
    good = load_images(samples.train, size).images[:]
    with nearest_mean(teacher, options.get("teacher-weights", defaults.teacher_weights), good) as session:
        scores = score_dataset(session, samples.test, size)
    details = {"model": f"nearest mean of {teacher}'s features", "data": f"{data} ({samples.layout})"}
    write_report(folder, evaluate(scores, None), scores, details)
