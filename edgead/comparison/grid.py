"""Grid of a comparison: several methods on several datasets with several seeds.

A cell of the grid is one dataset, one method and one seed. It needs three ordinary commands (`edgead train`, `build`,
`eval`) that write into known folders. The files of these commands are the only state of a cell, so it does not matter
who ran the commands, when, or how often they were killed. `edgead.comparison.run` runs them on this machine or a Ray
cluster. For other job runners (GNU parallel, xargs, Slurm), `command_lines` returns the missing commands as lines for a
shell. `edgead.comparison.figures` collects the results.

    OUT/grid.json                                        training options of all cells
    OUT/cells/DATASET/METHOD/seedN/run, bundle, report   output of the three commands
    OUT/cells/DATASET/METHOD/seedN/log.txt               log of the commands that `edgead compare` ran
    OUT/cells/DATASET/METHOD/seedN/latency.json          latency of the bundle and the machine that measured it
    OUT/baseline/DATASET/                                report of the nearest mean
    OUT/compare.json, compare.md, index.html             the comparison
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from edgead.data import dataset_path, open_dataset
from edgead.errors import DataError, InputError, RunError
from edgead.files.atomic import check_directory, check_empty, restore_directory
from edgead.files.parsing import parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from
from edgead.text import path_from_text, path_text, shell_line

MAX_JSON_BYTES = 256 * 2**20
GRID_FILE = "grid.json"

# Options of a comparison that `edgead train` refuses for a method without gradients.
_OF_GRADIENTS = ("epochs", "preset", "training-precision")

T = TypeVar("T")

State = Literal["left", "done", "collapsed"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One dataset, one method and one seed.

    Attributes:
        dataset: Name of the dataset.
        data: Folder of the dataset.
        method: Name of the method, with a variant as in `rstpm:deep`.
        seed: Seed of the training.
        folder: Folder of the cell's run, bundle and report.
    """

    dataset: str
    data: Path
    method: str
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Grid:
    """All cells of a comparison.

    Attributes:
        out: Folder of the comparison, an absolute path.
        datasets: Folders of the datasets by name, absolute paths.
        methods: Names of the methods.
        seeds: Number of seeds of each method and dataset: 0 to seeds - 1.
        options: Options of `edgead train` that the user gave, by name without the dashes.
    """

    out: Path
    datasets: Mapping[str, Path]
    methods: tuple[str, ...]
    seeds: int
    options: Mapping[str, str]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells in the order of their execution: the first seed of all methods before the second."""
        return tuple(
            Cell(name, data, method, seed, self.out / "cells" / name / method / f"seed{seed}")
            for name, data in self.datasets.items()
            for seed in range(self.seeds)
            for method in self.methods
        )


@dataclass(frozen=True, slots=True)
class _Earlier:
    """Content of grid.json.

    Attributes:
        options: See `Grid`.
        datasets: Folders of the datasets by name, absolute paths.
    """

    options: Mapping[str, str]
    datasets: Mapping[str, Path]


def plan_grid(
    data: Sequence[Path], methods: Sequence[str], seeds: int, options: Mapping[str, str], out: Path
) -> Grid:
    """Check the request before hours of work, and write grid.json.

    Args:
        data: Folders of the datasets.
        methods: Names of the methods, with a variant as in `rstpm:deep`.
        seeds: Number of seeds, 1 or more.
        options: Options of `edgead train` that the user gave, by name without the dashes.
        out: Folder of the comparison: new, empty, or of an earlier comparison with the same options.

    Returns:
        Grid of the comparison.

    Raises:
        InputError: If there is nothing to compare, a name is given twice, or `out` holds other files or a comparison
            with other options.
        DataError: If a folder is no dataset, or has no defect images to test on.
        RunError: If `out` has a grid.json that no comparison wrote.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}", hint="give 1 or more, better 3")
    if not data or not methods:
        raise InputError(
            "nothing to compare", hint="give one dataset or more, and one method or more with --methods"
        )
    for name in methods:
        if methods.count(name) > 1:
            raise InputError(f"method {name} is given twice", hint="give each method once")
    datasets: dict[str, Path] = {}
    for folder in data:
        dataset = open_dataset(folder)
        if not any(sample.label == 1 for sample in dataset.test):
            raise DataError(
                f"{folder} ({dataset.layout}) has no defects to test on", hint="give labelled test images"
            )
        if dataset.name in datasets:
            raise InputError(f"two datasets are named {dataset.name}", hint="rename one of the folders")
        datasets[dataset.name] = dataset_path(folder)
    grid = Grid(out.resolve(), datasets, tuple(methods), seeds, dict(options))
    _check_earlier(grid)
    return grid


def state_of(cell: Cell) -> State:
    """Return the state of a cell, which follows from its files.

    Args:
        cell: The cell.

    Returns:
        "done", "collapsed" if the training or the evaluation found a collapse, else "left".

    Raises:
        RunError: If a file of the cell is broken.
    """
    file = cell.folder / "report" / "results.json"
    if (results := read_json(file, dict)) is not None:
        evaluation = results.get("evaluation")
        if not isinstance(evaluation, dict):
            raise RunError(
                f"{file} holds no evaluation", hint=f"delete {cell.folder} and run the same command again"
            )
        return "done" if evaluation.get("collapse") is None else "collapsed"
    return "collapsed" if _run_state(cell) == "collapsed" else "left"


def commands_left(cell: Cell, options: Mapping[str, str]) -> list[list[str]]:
    """Return the commands that a cell still needs.

    Args:
        cell: The cell.
        options: Options of `edgead train`, by name without the dashes.

    Returns:
        Arguments of each command, in the order of execution. The list is empty if the cell is done or has collapsed.

    Raises:
        RunError: If a file of the cell is broken.
    """
    from edgead.models import method_class

    if state_of(cell) != "left":
        return []
    run, bundle, report = (str(cell.folder / name) for name in ("run", "bundle", "report"))
    method, _, variant = cell.method.partition(":")
    left_out = _OF_GRADIENTS if method_class(method).closed_form else ()
    given = [part for name, value in options.items() if name not in left_out for part in (f"--{name}", value)]
    train = [
        "edgead",
        "train",
        str(cell.data),
        "--out",
        run,
        "--method",
        method,
        *(["--variant", variant] if variant else []),
        "--seed",
        str(cell.seed),
    ]
    commands = [
        [*train, *given],
        ["edgead", "build", run, "--out", bundle],
        ["edgead", "eval", bundle, str(cell.data), "--out", report],
    ]
    restore_directory(Path(bundle))
    if (Path(bundle) / "manifest.json").is_file():
        return commands[2:]
    return commands[1:] if _run_state(cell) == "finished" else commands


def command_lines(grid: Grid) -> list[str]:
    """Return the missing commands of all cells as lines for a shell.

    Args:
        grid: Grid of the comparison.

    Returns:
        One line for each cell that is left. The lines are independent, so they may run in any order.

    Raises:
        RunError: If a file of a cell is broken.
    """
    left = (commands_left(cell, grid.options) for cell in grid.cells)
    return [" && ".join(map(shell_line, commands)) for commands in left if commands]


def read_json(file: Path, kind: type[T]) -> T | None:
    """Read a JSON file that edgead wrote.

    Args:
        file: Path of the file.
        kind: Type of the value, see `record_from`.

    Returns:
        The value, or None if the file does not exist.

    Raises:
        RunError: If the file is broken or its value has another type.
    """
    if not file.exists():
        return None
    with record_errors(RunError, f"{file} is broken", f"remove {file.parent} and run the same command again"):
        return record_from(kind, parse_json(read_bounded(file, MAX_JSON_BYTES), MAX_JSON_BYTES))


def _run_state(cell: Cell) -> str | None:
    """State that the record of the run holds, None without a run."""
    record = read_json(cell.folder / "run" / "run.json", dict)
    return None if record is None else record.get("state")


def _check_earlier(grid: Grid) -> None:
    """Refuse a folder with other files or other options, and write grid.json for the check of a later start."""
    check_directory(grid.out)
    file = grid.out / GRID_FILE
    if (content := read_json(file, dict)) is not None:
        with record_errors(
            RunError,
            f"{file} is no record of a comparison",
            "choose another --out, an empty or new directory",
        ):
            earlier = record_from(_Earlier, content)
            options = {name: path_from_text(value) for name, value in earlier.options.items()}
            earlier = replace(earlier, options=options)
    else:
        check_empty(grid.out, "comparison")
        earlier = _Earlier(grid.options, {})
    for name in sorted(earlier.options.keys() | grid.options.keys()):
        was, now = earlier.options.get(name), grid.options.get(name)
        if was != now:
            raise InputError(
                f"{grid.out} holds a comparison with {_option(name, was)}, not {_option(name, now)}",
                hint="choose another --out, or give the same options as before",
            )
    for name, folder in grid.datasets.items():
        if (before := earlier.datasets.get(name, folder)) != folder:
            raise InputError(
                f"{grid.out} compares {before}, not {folder}",
                hint="choose another --out or rename the folder",
            )
    options = {name: path_text(value) for name, value in earlier.options.items()}
    write_json(file, {"options": options, "datasets": {**earlier.datasets, **grid.datasets}})


def _option(name: str, value: str | None) -> str:
    """Text of an option for messages."""
    return f"no --{name}" if value is None else f"--{name} {value}"
