"""Execution of a comparison: the missing commands of each cell are a job, which an executor runs here or elsewhere."""

from __future__ import annotations

import logging

from edgead.cluster.job import Executor, Job, paths_in
from edgead.comparison.grid import Cell, Grid, commands_left, state_of
from edgead.errors import RunError
from edgead.files.lock import exclusive

_log = logging.getLogger(__name__)


def run_grid(grid: Grid, executor: Executor) -> dict[Cell, str]:
    """Run the missing commands of all cells.

    A failed cell does not stop the others. It stays left, so the next call tries it again.

    Args:
        grid: Grid of the comparison.
        executor: Executor of the cells, see `edgead.cluster.place.open_executor`.

    Returns:
        Error of each failed cell, one line each.

    Raises:
        InputError: Another comparison works in the same folder, or no machine of a cluster can run a cell.
    """
    failed: dict[Cell, str] = {}
    jobs: dict[str, Cell] = {}
    # A command that outlives a killed comparison holds the lock too, until it ends.
    with exclusive(grid.out) as lock:
        left = []
        for number, cell in enumerate(grid.cells, start=1):
            try:
                commands = commands_left(cell, grid.options)
            except RunError as broken:
                _fail(failed, cell, str(broken))
                continue
            if commands:
                name, inputs = (
                    f"[{number}/{len(grid.cells)}] {cell}",
                    (cell.data, *paths_in(grid.options.values())),
                )
                left.append(Job(name, cell.folder, inputs, tuple(map(tuple, commands))))
                jobs[name] = cell
        for job, error in executor.run(left, lock):
            cell = jobs[job.name]
            if error is not None and not _has_collapsed(cell):
                _fail(failed, cell, error)
    return failed


def _has_collapsed(cell: Cell) -> bool:
    """Return whether a cell collapsed: a result of the comparison, although the command reports it as an error."""
    try:
        return state_of(cell) == "collapsed"
    except RunError:
        return False


def _fail(failed: dict[Cell, str], cell: Cell, error: str) -> None:
    _log.warning("%s failed: %s", cell, error)
    failed[cell] = error
