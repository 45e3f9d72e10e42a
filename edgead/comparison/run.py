"""Execution of a comparison on this machine: cell after cell, each command in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgead.comparison.grid import Cell, Grid, commands_left, state_of
from edgead.errors import RunError
from edgead.files.lock import exclusive
from edgead.text import printable, shell_line

_log = logging.getLogger(__name__)


def run_grid(grid: Grid) -> dict[Cell, str]:
    """Run the missing commands of all cells, one cell after the other.

    A failed cell does not stop the others. It stays left, so the next call tries it again.

    Args:
        grid: Grid of the comparison.

    Returns:
        Error of each failed cell, one line each.

    Raises:
        InputError: Another comparison works in the same folder.
    """
    failed: dict[Cell, str] = {}
    # A command that outlives a killed comparison holds the lock too, until it ends.
    with exclusive(grid.out) as lock:
        for number, cell in enumerate(grid.cells, start=1):
            error = _do(cell, grid.options, lock, f"[{number}/{len(grid.cells)}]")
            if error is not None:
                _log.warning("%s failed: %s", cell, error)
                failed[cell] = error
    return failed


def _do(cell: Cell, options: Mapping[str, str], lock: int | None, number: str) -> str | None:
    """Run the missing commands of a cell; return the error line if it fails, else None."""
    try:
        for command in commands_left(cell, options):
            _log.info("%s %s: %s", number, cell, " ".join(command[:2]))
            error = _run(command, cell.folder / "log.txt", lock)
            if error is not None:
                # A collapse is a result of the comparison, although the command reports it as an error.
                return None if state_of(cell) == "collapsed" else error
    except RunError as broken:
        return str(broken)
    return None


def _run(command: Sequence[str], log: Path, lock: int | None) -> str | None:
    """Run one command to its end; return the error line if it fails, else None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last = "no message"
    with log.open("a", encoding="utf-8") as written:
        print(f"$ {shell_line(command)}", file=written, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=written,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            pass_fds=[] if lock is None else [lock],
        )
        with process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    print(printable(line.rstrip("\n")), file=written, flush=True)
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
        return (
            f"{name} was ended by signal {-process.returncode}: check whether memory ran out, and try again"
        )
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"{name} ended with exit code {process.returncode}: {last}; see {log}"
