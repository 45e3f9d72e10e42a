"""Execution of a comparison on this machine: cell after cell, each command in a process of its own."""

from __future__ import annotations

import fcntl
import logging
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgead.comparison.grid import Cell, Grid, commands_left, state_of
from edgead.errors import RunError

_log = logging.getLogger(__name__)


def run_grid(grid: Grid) -> dict[Cell, str]:
    """Run the missing commands of all cells, one cell after the other.

    A failed cell does not stop the others. It stays left, so the next call tries it again. If another process works in
    the same folder, the function waits for its end.

    Args:
        grid: Grid of the comparison.

    Returns:
        Error of each failed cell, one line each.
    """
    failed: dict[Cell, str] = {}
    with _alone(grid.out) as lock:
        for number, cell in enumerate(grid.cells, start=1):
            error = _do(cell, grid.options, lock, f"[{number}/{len(grid.cells)}]")
            if error is not None:
                _log.warning("%s failed: %s", cell, error)
                failed[cell] = error
    return failed


@contextmanager
def _alone(out: Path) -> Iterator[IO[str]]:
    """Hold the lock of the folder. A command that outlives a killed comparison holds it too, until it ends."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process works in %s: waiting for it to end", out)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _do(cell: Cell, options: Mapping[str, str], lock: IO[str], number: str) -> str | None:
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


def _run(command: Sequence[str], log: Path, lock: IO[str]) -> str | None:
    """Run one command to its end; return the error line if it fails, else None."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last = "no message"
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
        return (
            f"{name} was ended by signal {-process.returncode}: check whether memory ran out, and try again"
        )
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"{name} ended with exit code {process.returncode}: {last}; see {log}"
