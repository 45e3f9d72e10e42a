"""`edgead train --each`: trains one model for each part, on this machine or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgead.cli.command import named_options

if TYPE_CHECKING:
    from edgead.cluster.each import PartResult

_OF_EACH = ("data", "out", "each", "on")
# Options whose files go to the trainings.
_OF_FILES = ("teacher_weights", "textures", "ignore")


def train_each(context: typer.Context, data: list[Path], out: Path) -> None:
    """Train one model for each folder in the folders of the data, and print a summary.

    Args:
        context: Context of the command `edgead train`, with its options.
        data: Folders, each with one folder for each part.
        out: Folder of the runs.

    Raises:
        InputError: An option does not fit.
        CollapseError: Some models learnt nothing, and no training failed.
        EdgeadError: A training failed.
    """
    from edgead.cli.interrupt import says_on_interrupt
    from edgead.cli.progress import ProgressDisplay, echo, first_line
    from edgead.cluster.each import part_folders
    from edgead.cluster.each import train_each as start
    from edgead.cluster.place import check_place, open_executor
    from edgead.files.packages import require_packages

    on, options = context.params["on"], _options(context)
    first_line(f"training each part in {' and '.join(map(str, data))}")
    require_packages("train", "edgead train", "torch", "timm", "lightning_fabric")
    check_place(on)
    part_folders(data)
    kept = "finished parts are kept; the same command continues"
    with says_on_interrupt(lambda: kept), ProgressDisplay() as display, open_executor(on) as executor:
        results = start(data, out, options, _devices(context), executor)
    for line in _lines(results, out):
        echo(line)
    echo(f"time       {display.total}")
    _raise_failed(results)


def _options(context: typer.Context) -> dict[str, str | None]:
    """Return the options of each training that the command line names, by their names with the dashes."""
    from edgead.cluster.job import absolute_paths
    from edgead.errors import InputError

    given: dict[str, str | None] = {}
    for name, option in named_options(context).items():
        value = context.params[name]
        if name in ("from_", "nodes"):
            raise InputError(f"{option} {value} with --each", hint="leave one of them out")
        if name not in _OF_EACH:
            text = absolute_paths(str(value)) if name in _OF_FILES else str(value)
            given[option] = None if value is True else text
    if not context.params["each"]:
        raise InputError(
            f"--on {context.params['on']} without --each",
            hint="add --each for one model for each folder in DATA, or leave out --on",
        )
    return given


def _devices(context: typer.Context) -> int | None:
    """Return the number of GPUs of a training; None for one if there is any."""
    accelerator, devices = str(context.params["accelerator"]), int(context.params["devices"])
    if accelerator == "cpu":
        return 0
    return None if accelerator == "auto" and devices == 1 else devices


def _lines(results: Sequence[PartResult], out: Path) -> list[str]:
    """Describe the results: parts without a run with the reason, then the counts."""
    states = [result.state for result in results]
    counts = [
        f"{states.count(state)} {state}"
        for state in ("finished", "collapsed", "failed")
        if state in states or state == "finished"
    ]
    return [
        *(f"{result.state:<10} {result.name}: {result.reason}" for result in results if result.reason),
        f"parts      {len(results)}: {', '.join(counts)}",
        f"runs       {out}/PART/run",
    ]


def _raise_failed(results: Sequence[PartResult]) -> None:
    """Raise an error if a part has no run."""
    from edgead.errors import CollapseError, EdgeadError

    for state, kind, hint in (
        ("failed", EdgeadError, "the same command tries them again, and trains no finished part"),
        ("collapsed", CollapseError, "train them with other options, into another --out"),
    ):
        found = [result for result in results if result.state == state]
        if found:
            raise kind(
                f"{len(found)} of {len(results)} parts {state}, the first is {found[0].name}", hint=hint
            )
