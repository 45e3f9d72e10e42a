"""Several methods on several parts, some seeds each: what is to be done, what is done, and doing the rest.

A cell of the grid is one dataset, one method, one seed: three ordinary commands (`edgead train`, `build`, `eval`) into
known directories. What those commands left there is the only state a cell has, so it does not matter who ran them,
when, or how often they were killed. Here they run one after the other, each in a process of its own; to spread them
over machines, `command_lines` gives what is left as lines for a shell, and an engine that exists (GNU parallel, xargs,
Slurm, Ray) runs those. How the figures are put together is in `edgead.comparison.figures`.

    OUT/grid.json                                   the options that all cells are trained with
    OUT/cells/DATASET/METHOD/seedN/run, bundle, report   what the three commands write
    OUT/cells/DATASET/METHOD/seedN/log.txt          what they said, where `edgead compare` ran them
    OUT/baseline/DATASET/                           the report of the nearest mean
    OUT/compare.json, compare.md, index.html        the comparison
"""

from __future__ import annotations

import fcntl
import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

from edgead.data import open_dataset
from edgead.errors import DataError, InputError, RunError
from edgead.files.atomic import check_directory, restore_directory
from edgead.files.parsing import parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from

_log = logging.getLogger(__name__)

MAX_JSON_BYTES = 256 * 2**20
GRID_FILE = "grid.json"

T = TypeVar("T")

State = Literal["left", "done", "collapsed"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One dataset, one method, one seed.

    method: as `rstpm:deep` for a variant. data: the dataset's folder. folder: where its run, bundle and report lie.
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
    """What is to be compared.

    out: absolute. datasets: absolute folders by name. seeds: 0 to seeds - 1 of each. options: of `edgead train`, those
    that were given, by name without the dashes.
    """

    out: Path
    datasets: Mapping[str, Path]
    methods: tuple[str, ...]
    seeds: int
    options: Mapping[str, str]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order in which they are done: the first seed of all methods before the second."""
        return tuple(
            Cell(name, data, method, seed, self.out / "cells" / name / method / f"seed{seed}")
            for name, data in self.datasets.items()
            for seed in range(self.seeds)
            for method in self.methods
        )


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The content of grid.json. options: see `Grid`. datasets: absolute folders by name."""

    options: Mapping[str, str]
    datasets: Mapping[str, str]


def plan_grid(
    data: Sequence[Path], methods: Sequence[str], seeds: int, options: Mapping[str, str], out: Path
) -> Grid:
    """Check what is asked, before hours are spent on it.

    Raises InputError for seeds below 1, nothing to compare, a name given twice, or a directory that holds something
    else or a comparison with other options; DataError for a folder that is no dataset with test images; RunError for
    a grid.json that is no comparison's.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}: give 1 or more, better 3")
    if not data or not methods:
        raise InputError("nothing to compare: give one dataset and one method or more")
    for name in methods:
        if methods.count(name) > 1:
            raise InputError(f"method {name} is given twice: give each once")
    datasets: dict[str, Path] = {}
    for folder in data:
        dataset = open_dataset(folder)
        if not any(sample.label == 1 for sample in dataset.test):
            raise DataError(
                f"{folder} ({dataset.layout}) has no defects to test on: give labelled test images"
            )
        if dataset.name in datasets:
            raise InputError(f"two datasets are named {dataset.name}: rename one of the folders")
        datasets[dataset.name] = folder.resolve()
    grid = Grid(out.resolve(), datasets, tuple(methods), seeds, dict(options))
    _check_earlier(grid)
    return grid


def state_of(cell: Cell) -> State:
    """What the files of a cell say; `collapsed` by training or evaluation. Raises RunError for broken files."""
    file = cell.folder / "report" / "results.json"
    if (results := read_json(file, dict)) is not None:
        evaluation = results.get("evaluation")
        if not isinstance(evaluation, dict):
            raise RunError(f"{file} holds no evaluation: delete {cell.folder}, and the cell is made anew")
        return "done" if evaluation.get("collapse") is None else "collapsed"
    return "collapsed" if _run_state(cell) == "collapsed" else "left"


def commands_left(cell: Cell, options: Mapping[str, str]) -> list[list[str]]:
    """The commands that a cell still needs, none where it is done or has collapsed."""
    if state_of(cell) != "left":
        return []
    run, bundle, report = (str(cell.folder / name) for name in ("run", "bundle", "report"))
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    method, _, variant = cell.method.partition(":")
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
    """What is left as one line for a shell for each cell, in any order; they know nothing of each other."""
    left = (commands_left(cell, grid.options) for cell in grid.cells)
    return [" && ".join(shlex.join(command) for command in commands) for commands in left if commands]


def run_grid(grid: Grid) -> dict[Cell, str]:
    """Do what is left, cell after cell; give the error of every cell that failed, one line each.

    A cell that failed is left, and is tried again by the next call. Where another
    process works in the same directory, its end is waited for.
    """
    failed: dict[Cell, str] = {}
    with _alone(grid.out) as lock:
        for number, cell in enumerate(grid.cells, start=1):
            error = _do(cell, grid.options, lock, f"[{number}/{len(grid.cells)}]")
            if error is not None:
                _log.warning("%s failed: %s", cell, error)
                failed[cell] = error
    return failed


def read_json(file: Path, kind: type[T]) -> T | None:
    """A value that edgead wrote, None where there is no such file; RunError where it is broken or of another kind."""
    if not file.exists():
        return None
    with record_errors(RunError, f"{file} is broken", f"remove {file.parent} to have it made again"):
        return record_from(kind, parse_json(read_bounded(file, MAX_JSON_BYTES), MAX_JSON_BYTES))


def _run_state(cell: Cell) -> str | None:
    record = read_json(cell.folder / "run" / "run.json", dict)
    return None if record is None else record.get("state")


def _check_earlier(grid: Grid) -> None:
    """Refuse a directory of something else; write down what its cells have in common, for a later start to compare."""
    check_directory(grid.out)
    file = grid.out / GRID_FILE
    if (content := read_json(file, dict)) is not None:
        with record_errors(
            RunError,
            f"{file} is no record of a comparison",
            "choose another --out, an empty or new directory",
        ):
            earlier = record_from(_Earlier, content)
    else:
        if grid.out.is_dir() and any(not entry.name.startswith(".") for entry in grid.out.iterdir()):
            raise InputError(
                f"{grid.out} holds files that are no comparison: choose an empty or new directory"
            )
        earlier = _Earlier(grid.options, {})
    for name in sorted(earlier.options.keys() | grid.options.keys()):
        was, now = earlier.options.get(name), grid.options.get(name)
        if was != now:
            raise InputError(
                f"{grid.out} holds a comparison with {_option(name, was)}, not {_option(name, now)}: choose another "
                "--out, or give the options of then"
            )
    for name, folder in grid.datasets.items():
        if (was := earlier.datasets.get(name, str(folder))) != str(folder):
            raise InputError(
                f"{grid.out} compares {was}, not {folder}: choose another --out or rename the folder"
            )
    known = {**earlier.datasets, **{name: str(folder) for name, folder in grid.datasets.items()}}
    write_json(file, {"options": earlier.options, "datasets": known})


def _option(name: str, value: str | None) -> str:
    return f"no --{name}" if value is None else f"--{name} {value}"


@contextmanager
def _alone(out: Path) -> Iterator[IO[str]]:
    """Hold the directory's lock; a command that a killed comparison left behind holds it until it ends."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process works in %s: waiting for it to end", out)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _do(cell: Cell, options: Mapping[str, str], lock: IO[str], number: str) -> str | None:
    """Run what a cell still needs; give the line that says why it failed."""
    try:
        for command in commands_left(cell, options):
            _log.info("%s %s: %s", number, cell, " ".join(command[:2]))
            error = _run(command, cell.folder / "log.txt", lock)
            if error is not None:
                # A collapse is a result, which the command calls an error.
                return None if state_of(cell) == "collapsed" else error
    except RunError as broken:
        return str(broken)
    return None


def _run(command: Sequence[str], log: Path, lock: IO[str]) -> str | None:
    """Run one command to its end; give the line that says why it failed, None when it did not."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last = "it said nothing"
    with log.open("a", encoding="utf-8") as written:
        print(f"$ {shlex.join(command)}", file=written, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=written,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            pass_fds=[lock.fileno()],
        )
        with process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    print(line, end="", file=written, flush=True)
                    if text := line.strip():
                        last = text
                        _log.info("  %s", text)
            except BaseException:
                process.terminate()
                raise
    if process.returncode == 0:
        return None
    name = " ".join(command[:2])
    if process.returncode < 0:
        return f"{name} was ended by signal {-process.returncode}: look whether memory ran out, and try again"
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"{name} ended with exit code {process.returncode}: {last}; see {log}"
