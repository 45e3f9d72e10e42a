"""INT8 of the whole network with the defaults of `edgead build --precision int8`, for every method, part and seed.

    python benchmarks/int8.py --data ../shared/data --work /tmp/int8
    python benchmarks/int8.py --data ../shared/data --work /tmp/int8 --choices

Each cell is one run (see int8_runs.py), its float32 graph converted to INT8, and compared as in a build: errors on
held-out good images and a synthetic defect of each, image AUROC on the labelled test images. Runs and calibrations
are kept in the folder of `--work`. A cell that int8.json already holds is not measured again, unless the source of the
converter has changed since. With `--choices` every kind of calibration images and every algorithm is measured instead,
each with the default of the other, on two runs. The results are int8.json and int8_grid.md in benchmarks/results/.

The labels of `magnetic_tile` choose nothing: they are read only with `--labels`, for the last table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from int8_runs import METHODS, PARTS, Judge, converter_version, labelled_images, machine_and_versions, trained

from edgead.engine.calibration_images import CALIBRATE_ON
from edgead.engine.precision_converter import Calibrating
from edgead.errors import CollapseError
from edgead.export.precision.clipping import ALGORITHMS
from edgead.files.parsing import write_json

RESULTS = Path(__file__).parent / "results"
RESERVED = ("magnetic_tile",)
"""Parts with labels that choose nothing."""

MAP_ERROR_GOAL, FLIPS_GOAL, AUROC_GOAL = 0.15, 0, -0.003

CHOICES_OF = (("washer", "rd", 0), ("washer", "stfpm-slim", 0))


def measure(
    part: str, method: str, seed: int, arguments: argparse.Namespace, calibratings: Sequence[Calibrating]
) -> Iterator[dict[str, Any]]:
    """Convert and judge one run.

    Args:
        part: Name of the part.
        method: Name of the method.
        seed: Seed of the run.
        arguments: Options of the command.
        calibratings: Calibrations to measure. The cache is set here.

    Yields:
        One row of figures for each calibration.
    """
    run = trained(method, part, seed, arguments.data, arguments.work)
    reserved = () if arguments.labels else RESERVED
    converter = converter_version()
    with Judge(run, labelled_images(run, part, arguments.data, reserved)) as judge:
        for calibrating in calibratings:
            kind = f"{calibrating.calibrate_on}-{calibrating.algorithm}"
            folder = arguments.work / "calibration" / converter / kind
            folder.mkdir(parents=True, exist_ok=True)
            cache = folder / f"{run.path.name}.json"
            began, fresh = time.process_time(), not cache.exists()
            model = (
                judge.converter(Calibrating(calibrating.calibrate_on, calibrating.algorithm, cache))
                .graph("int8")
                .model
            )
            yield {
                "converter": converter,
                "calibrate_on": calibrating.calibrate_on,
                "algorithm": calibrating.algorithm,
                "cpu_s": time.process_time() - began if fresh else None,
                "size_px": run.size.height_px,
                "fp32_mb": len(judge.model) / 1e6,
                "training": {"epochs": run.record.config.epochs, "seconds": run.summary["seconds"]},
                **judge.row(model),
            }


def misses(cell: dict[str, Any]) -> list[str]:
    """List the goals that a cell misses.

    Args:
        cell: Figures of one cell.

    Returns:
        Names of the measures.
    """
    found = ["map"] if cell["map_error_max"] is None or cell["map_error_max"] > MAP_ERROR_GOAL else []
    found += ["flips"] if cell["decision_flips"] > FLIPS_GOAL else []
    change = cell["auroc_change"]
    return found + (["AUROC"] if change is not None and change < AUROC_GOAL else [])


def table(part: str, cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the cells of one part as a Markdown table.

    Args:
        part: Name of the part.
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table; none if no cell is measured.
    """
    lines = []
    for method in METHODS:
        rows = [cell for name, cell in cells.items() if name.rpartition("/")[0] == f"{part}/{method}"]
        if not rows:
            continue
        missed = sorted({name for row in rows for name in misses(row)})
        number = sum(bool(misses(row)) for row in rows)
        columns = [
            method,
            str(len(rows)),
            _each(f"{row['size_px']}, {row['training']['epochs']}" for row in rows),
            *(_spread(rows, name, ".3f") for name in ("map_error_max", "score_error_max")),
            f"{min(row['rank_correlation'] for row in rows):.3f}",
            _flips(rows),
            _spread(rows, "reference_auroc", ".3f"),
            _spread(rows, "auroc_change", "+.4f"),
            f"{rows[0]['fp32_mb']:.1f}, {rows[0]['mb']:.1f}",
            f"**misses {', '.join(missed)}** ({number} of {len(rows)})" if missed else "yes",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    heading = (
        "| method | seeds | pixels, epochs | map error | score error | lowest rank | flips | image AUROC, float32 "
        "| change | MB, float32 and INT8 | goal |"
    )
    return [f"## {part}", "", heading, "|" + "---|" * (heading.count("|") - 1), *lines, ""] if lines else []


def _each(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _flips(rows: Sequence[dict[str, Any]]) -> str:
    distances = [row["flip_distance"] for row in rows if row.get("flip_distance") is not None]
    text = f"{sum(row['decision_flips'] for row in rows)} of {sum(row['n'] for row in rows)}"
    return f"{text} ({max(distances):.1%} from the threshold)" if distances else text


def _spread(rows: Sequence[dict[str, Any]], name: str, style: str) -> str:
    values = [row[name] for row in rows if row[name] is not None]
    if not values:
        return "-"
    text = f"{mean(values):{style}}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):{style.replace('+', '')}}"


def overview(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the largest map error of each method on each part as a Markdown table.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [f"| method | {' | '.join(PARTS)} |", "|---" * (len(PARTS) + 1) + "|"]
    for method in METHODS:
        columns = []
        for part in PARTS:
            rows = [cell for name, cell in cells.items() if name.rpartition("/")[0] == f"{part}/{method}"]
            missed = _each(sorted(name for row in rows for name in misses(row)))
            worst = f"{max(row['map_error_max'] for row in rows):.3f}" if rows else "-"
            columns.append(f"**{worst}** ({missed.replace(';', ',')})" if missed else worst)
        lines.append(f"| {method} | {' | '.join(columns)} |")
    return lines


def choices_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the choices of calibration of one run as a Markdown table.

    Args:
        rows: Figures of the choices.

    Returns:
        Lines of the table.
    """
    lines = ["| calibrated on | algorithm | map error | score error | rank | flips | AUROC change |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        change = "-" if row["auroc_change"] is None else f"{row['auroc_change']:+.4f}"
        lines.append(
            f"| {row['calibrate_on']} | {row['algorithm']} | {row['map_error_max']:.3f} | {row['score_error_max']:.3f} "
            f"| {row['rank_correlation']:.3f} | {row['decision_flips']} of {row['n']} | {change} |"
        )
    return lines


def page(results: dict[str, Any]) -> str:
    """Return the report as Markdown.

    Args:
        results: Content of int8.json.

    Returns:
        Text of several lines.
    """
    cells = results["cells"]
    good = sum(not misses(cell) for cell in cells.values())
    versions: dict[str, int] = {}
    for cell in cells.values():
        versions[cell["converter"]] = versions.get(cell["converter"], 0) + 1
    lines = [
        "# INT8 of every method",
        "",
        "`python benchmarks/int8.py --data ../shared/data --work WORK` and the same with `--choices` and `--labels`. "
        f"{results['machine']}.",
        "",
        "Defaults of `edgead build --precision int8` (`mixed`, `mse`), EfficientNet-Lite0. Short trainings, see "
        "`benchmarks/int8_runs.py`, and some longer ones that were at hand; the columns say size and epochs. Mean ± "
        "standard deviation over the seeds. Errors, rank and flips: validation images of each run, on ONNX Runtime.",
        "",
        f"Goal: map error at most {MAP_ERROR_GOAL}, no flips, change of image AUROC at least {AUROC_GOAL}. "
        f"{good} of {len(cells)} runs meet it. A row with seeds that miss it says which measure and how many seeds.",
        "",
        "Versions of the converter: "
        + ", ".join(f"`{name}` ({count} runs)" for name, count in versions.items()),
        "",
    ]
    if results["collapsed"]:
        lines += [f"Trainings that collapsed, which are in no table: {', '.join(results['collapsed'])}.", ""]
    for part in PARTS:
        lines += table(part, cells)
    if results["choices"]:
        lines += ["# Calibration images and algorithms", ""]
        for name, rows in results["choices"].items():
            lines += [f"## {name}", "", *choices_table(rows), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure the cells that are missing and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets of real parts")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and calibrations")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--choices", action="store_true", help="measure choices of calibration instead")
    parser.add_argument(
        "--labels", action="store_true", help=f"also read the labels of {', '.join(RESERVED)}"
    )
    arguments = parser.parse_args()
    file = RESULTS / "int8.json"
    results = json.loads(file.read_text()) if file.exists() else {"cells": {}, "choices": {}, "collapsed": {}}
    results["machine"] = machine_and_versions(("onnxruntime", "onnx", "numpy"))

    def save() -> None:
        write_json(file, results)
        (RESULTS / "int8_grid.md").write_text(page(results))

    if arguments.choices:
        _measure_choices(arguments, results["choices"], save)
        return
    for seed, part, method in product(arguments.seeds, arguments.parts, arguments.methods):
        name = f"{part}/{method}/{seed}"
        done = results["cells"].get(name)
        if (
            done is not None
            and done["converter"] == converter_version()
            and not (arguments.labels and done["auroc_change"] is None)
        ):
            continue
        began = time.monotonic()
        try:
            (results["cells"][name],) = measure(part, method, seed, arguments, [Calibrating()])
        except CollapseError as error:
            results["collapsed"][name] = str(error)
            save()
            continue
        save()
        row = results["cells"][name]
        print(
            f"{name} {time.monotonic() - began:.0f} s: map {row['map_error_max']:.3f} score "
            f"{row['score_error_max']:.3f} rank {row['rank_correlation']:.4f} flips {row['decision_flips']} AUROC "
            f"{row['reference_auroc']} {row['auroc_change']} misses {misses(row)}",
            flush=True,
        )
    save()


def _measure_choices(
    arguments: argparse.Namespace, choices: dict[str, list[dict[str, Any]]], save: Callable[[], None]
) -> None:
    """Measure every kind of calibration images with `mse`, and every algorithm on `mixed`."""
    for part, method, seed in CHOICES_OF:
        name = f"{part}-{method}-{seed}"
        if choices.get(name, [{}])[0].get("converter") != converter_version():
            pairs = [Calibrating(calibrate_on=kind) for kind in CALIBRATE_ON]
            pairs += [Calibrating(algorithm=algorithm) for algorithm in ALGORITHMS if algorithm != "mse"]
            choices[name] = list(measure(part, method, seed, arguments, pairs))
            save()


if __name__ == "__main__":
    main()
