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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from int8_page import misses, page
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
