"""INT8 of the whole network with the defaults of `edgead build --precision int8`, for every method, part and seed.

    python benchmarks/int8.py --data ../shared/data --work /tmp/int8
    python benchmarks/int8.py --data ../shared/data --work /tmp/int8 --runs runs/screw-linear-0
    python benchmarks/int8.py --data ../shared/data --work /tmp/int8 --choices

Each cell is one run (see int8_runs.py), its float32 graph converted to INT8, and compared as in a build: errors on
held-out good images and a synthetic defect of each, image AUROC on the labelled test images. Seed 0 of one part is
also compared with float16 instead of float32 beside INT8, as a TensorRT target compiles it, and a cell that misses a
goal with the float16 graph, as a yardstick. Runs and calibrations are kept in the folder of `--work`. A cell that
int8.json already holds is not measured again, unless the source of the converter has changed since.

With `--runs` runs that `edgead train` made, such as those of the default settings, are measured into a table of their
own; the names of their folders must differ. With `--choices` every kind of calibration images and every algorithm is
measured instead, each with the default of the other, on two runs. The results are int8.json and int8_grid.md in
benchmarks/results/.

The labels of `magnetic_tile` choose nothing: they are read only with `--labels`, for the last table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
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
from edgead.training.run import Run, open_run

RESULTS = Path(__file__).parent / "results"
RESERVED = ("magnetic_tile",)
"""Parts with labels that choose nothing."""

MAP_ERROR_GOAL, FLIPS_GOAL, AUROC_GOAL = 0.15, 0, -0.003

HALF_BESIDE = "washer"
"""Part that is also compared with float16 beside INT8, which takes as long as all else of a comparison."""

CHOICES_OF = (("washer", "rd", 0), ("washer", "stfpm-slim", 0))


def measure(
    run: Run, part: str, arguments: argparse.Namespace, calibratings: Sequence[Calibrating]
) -> Iterator[dict[str, Any]]:
    """Convert and judge one run.

    Args:
        run: The run.
        part: Name of its part.
        arguments: Options of the command.
        calibratings: Calibrations to measure. The cache is set here.

    Yields:
        One row of figures for each calibration.
    """
    reserved = () if arguments.labels else RESERVED
    converter = converter_version()
    with Judge(run, labelled_images(run, part, arguments.data, reserved)) as judge:
        for calibrating in calibratings:
            kind = f"{calibrating.calibrate_on}-{calibrating.algorithm}"
            folder = arguments.work / "calibration" / converter / kind
            folder.mkdir(parents=True, exist_ok=True)
            cache = folder / f"{run.path.name}.json"
            began, fresh = time.process_time(), not cache.exists()
            int8 = Calibrating(calibrating.calibrate_on, calibrating.algorithm, cache)
            model = judge.converter(int8).graph("int8").model
            row = {
                "converter": converter,
                "calibrate_on": calibrating.calibrate_on,
                "algorithm": calibrating.algorithm,
                "cpu_s": time.process_time() - began if fresh else None,
                "size": f"{run.size.height_px}x{run.size.width_px}",
                "fp32_mb": len(judge.model) / 1e6,
                "training": {"epochs": run.record.config.epochs, "seconds": run.summary["seconds"]},
                **judge.row(model),
            }
            if run.record.config.seed == 0 and part == HALF_BESIDE and not arguments.choices:
                row["half_beside"] = judge.row(
                    judge.converter(int8, half_beside_int8=True).graph("int8").model
                )
            if misses(row) and not arguments.choices:
                row["fp16"] = judge.row(judge.converter(int8).graph("fp16").model)
            yield row


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
            _each(f"{row['size']}, {row['training']['epochs']}" for row in rows),
            *(_spread(rows, name, ".3f") for name in ("map_error_max", "score_error_max")),
            f"{min(row['rank_correlation'] for row in rows):.3f}",
            _flips(rows),
            _spread(rows, "reference_auroc", ".3f"),
            _spread(rows, "auroc_change", "+.4f"),
            _pairs(rows),
            f"{rows[0]['fp32_mb']:.1f}, {rows[0]['mb']:.1f}",
            f"**misses {', '.join(missed)}** ({number} of {len(rows)})" if missed else "yes",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    heading = (
        "| method | seeds | pixels, epochs | map error | score error | lowest rank | flips | image AUROC, float32 "
        "| change | pairs lost, won | MB, float32 and INT8 | goal |"
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


def _pairs(rows: Sequence[dict[str, Any]]) -> str:
    counts = [row["pairs"] for row in rows if row["pairs"] is not None]
    if not counts:
        return "-"
    lost, won, total = (sum(count[name] for count in counts) for name in ("lost", "won", "total"))
    return f"{lost}, {won} of {total:,}"


def misses_table(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the runs that miss a goal as a Markdown table, with float16 of the same runs beside them.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [
        "| run | misses | AUROC change | pairs lost, won | allowed net loss | largest difference of a lost pair "
        "| RMS of the score errors | flips (distance) | float16: change | lost, won | flips |"
    ]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for name, cell in cells.items():
        if not misses(cell):
            continue
        pairs, half = cell["pairs"], cell["fp16"]
        of_pairs = ["-"] * 4
        if pairs is not None:
            of_pairs = [
                f"{pairs['lost']}, {pairs['won']} of {pairs['total']:,}",
                f"{-AUROC_GOAL * pairs['total']:.0f}",
                f"{pairs['lost_difference']:.1%}",
                f"{pairs['score_error_rms']:.1%}",
            ]
        columns = [
            name,
            ", ".join(misses(cell)),
            _spread([cell], "auroc_change", "+.4f"),
            *of_pairs,
            _flips([cell]),
            _spread([half], "auroc_change", "+.4f"),
            _pairs([half]),
            _flips([half]),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def half_beside_table(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return INT8 with float16 instead of float32 beside it as a Markdown table.

    Args:
        cells: Cells by "part/method/seed".

    Returns:
        Lines of the table.
    """
    lines = [
        "| run | map error, float32 beside | float16 beside | score error | | AUROC change | | flips | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        if "half_beside" in cell:
            both = [cell], [cell["half_beside"]]
            columns = [
                _spread(rows, measure, style)
                for measure, style in (
                    ("map_error_max", ".3f"),
                    ("score_error_max", ".3f"),
                    ("auroc_change", "+.4f"),
                )
                for rows in both
            ]
            lines.append(f"| {' | '.join([name, *columns, *(_flips(rows) for rows in both)])} |")
    return lines


def overview(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the largest map error of each method on each part and its number of seeds as a Markdown table.

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
            if not rows:
                columns.append("-")
                continue
            missed = sorted({name for row in rows for name in misses(row)})
            worst = f"{max(row['map_error_max'] for row in rows):.3f}"
            number = sum(bool(misses(row)) for row in rows)
            columns.append(
                f"**{worst}** ({len(rows)}; {', '.join(missed)} of {number})"
                if missed
                else f"{worst} ({len(rows)})"
            )
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
        *_versions(cells),
    ]
    if results["collapsed"]:
        lines += [f"Trainings that collapsed, which are in no table: {', '.join(results['collapsed'])}.", ""]
    for part in PARTS:
        lines += table(part, cells)
    if results.get("runs"):
        lines += ["# Trainings with the default settings", "", *_versions(results["runs"])]
        for part in PARTS:
            lines += table(part, results["runs"])
    for heading, content in (
        ("Runs that miss a goal", misses_table),
        ("Float16 beside INT8", half_beside_table),
    ):
        lines += [f"# {heading}", "", *content(cells), ""]
        if len(content(of_runs := results.get("runs", {}))) > 2:
            lines += ["Default settings:", "", *content(of_runs), ""]
    if results["choices"]:
        lines += ["# Calibration images and algorithms", ""]
        for name, rows in results["choices"].items():
            lines += [f"## {name}", "", f"Converter `{rows[0]['converter']}`.", "", *choices_table(rows), ""]
    return "\n".join(lines)


def _versions(cells: dict[str, dict[str, Any]]) -> list[str]:
    counts = Counter(cell["converter"] for cell in cells.values())
    listed = ", ".join(f"`{name}` ({count} runs)" for name, count in counts.items())
    return [f"Versions of the converter: {listed}.", ""]


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
    parser.add_argument("--runs", nargs="+", type=Path, help="measure these runs instead of the grid")
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
    cells, opened = results["cells"], _runs_of_the_grid(arguments)
    if arguments.runs:
        cells, opened = results.setdefault("runs", {}), _runs_of(arguments.runs)
    for name, part, open_one in opened:
        if _is_measured(cells.get(name), arguments.labels):
            continue
        began = time.monotonic()
        try:
            (cells[name],) = measure(open_one(), part, arguments, [Calibrating()])
        except CollapseError as error:
            results["collapsed"][name] = str(error)
            save()
            continue
        results["collapsed"].pop(name, None)
        save()
        _print(name, cells[name], time.monotonic() - began)
    save()


def _runs_of_the_grid(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Run]]]:
    """Yield the name of each cell, its part, and a function that trains its run."""
    for seed, part, method in product(arguments.seeds, arguments.parts, arguments.methods):
        yield (
            f"{part}/{method}/{seed}",
            part,
            partial(trained, method, part, seed, arguments.data, arguments.work),
        )


def _runs_of(paths: Iterable[Path]) -> Iterator[tuple[str, str, Callable[[], Run]]]:
    """Yield a name, the part, and a function that opens the run, for each path."""
    for path in paths:
        config = open_run(path).record.config
        part = Path(config.data[0]).name
        yield f"{part}/{config.method}/{config.seed}", part, partial(open_run, path)


def _is_measured(cell: dict[str, Any] | None, labels: bool) -> bool:
    """Whether a cell has the figures of the present converter, and the AUROC if labels are asked for."""
    if cell is None or cell["converter"] != converter_version():
        return False
    return not labels or cell["auroc_change"] is not None


def _print(name: str, row: dict[str, Any], seconds: float) -> None:
    print(
        f"{name} {seconds:.0f} s: map {row['map_error_max']:.3f} score {row['score_error_max']:.3f} "
        f"rank {row['rank_correlation']:.4f} flips {row['decision_flips']} AUROC {row['reference_auroc']} "
        f"{row['auroc_change']} {row['pairs']} misses {misses(row)}",
        flush=True,
    )


def _measure_choices(
    arguments: argparse.Namespace, choices: dict[str, list[dict[str, Any]]], save: Callable[[], None]
) -> None:
    """Measure every kind of calibration images with `mse`, and every algorithm on `mixed`."""
    for part, method, seed in CHOICES_OF:
        name = f"{part}-{method}-{seed}"
        if choices.get(name, [{}])[0].get("converter") != converter_version():
            pairs = [Calibrating(calibrate_on=kind) for kind in CALIBRATE_ON]
            pairs += [Calibrating(algorithm=algorithm) for algorithm in ALGORITHMS if algorithm != "mse"]
            run = trained(method, part, seed, arguments.data, arguments.work)
            choices[name] = list(measure(run, part, arguments, pairs))
            save()


if __name__ == "__main__":
    main()
