"""`edgead compare`: compares several methods on several parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import (
    TEACHERS,
    BitDepth,
    Method,
    On,
    Preset,
    TrainingPrecision,
    Variant,
    complete_methods,
    complete_teacher,
    listed,
    value_of,
)

_AS_TRAIN = "edgead train's"


def compare(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA", help="Datasets with test images, one folder for each part.", show_default=False
        ),
    ],
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help=f"Methods, joined by commas: {listed(tuple(Method))}; a variant follows a colon, as in rstpm:deep.",
            autocompletion=complete_methods,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the comparison, with all its runs and bundles.")
    ],
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Number of trainings of each method on each dataset: seeds 0, 1, ..."
        ),
    ] = 3,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of epochs of each training.", show_default=_AS_TRAIN),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Any convolutional network of timm: {listed(TEACHERS)}, ...",
            show_default=_AS_TRAIN,
            autocompletion=complete_teacher,
        ),
    ] = None,
    teacher_weights: Annotated[
        str | None,
        typer.Option(
            metavar="package|hub|random|FILE",
            help="Source of the teacher's weights.",
            show_default=_AS_TRAIN,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Image size in pixels, multiples of 32.", show_default=_AS_TRAIN),
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="Hyperparameters of each training.", show_default=_AS_TRAIN)
    ] = None,
    training_precision: Annotated[
        TrainingPrecision | None, typer.Option(help="Precision of each training.", show_default=_AS_TRAIN)
    ] = None,
    bit_depth: BitDepth = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="Print one shell command line for each unfinished cell, and train nothing."
        ),
    ] = False,
    on: On = None,
) -> None:
    """Compare methods on datasets with several seeds.

    Trains, builds and evaluates each cell, then writes one page. A cell is one dataset, method and seed. The same
    command again continues a comparison that was killed, runs failed cells again and skips finished cells. Cells may
    run elsewhere: on a Ray cluster with --on, or with --list | parallel; then the same command without --list collects
    the results.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line
    from edgead.files.packages import require_packages

    names = [name.strip() for name in methods.split(",") if name.strip()]
    first_line(
        f"comparing {', '.join(names)} on {' and '.join(folder.name or str(folder) for folder in data)}"
    )
    from edgead.cluster.job import absolute_paths
    from edgead.cluster.place import check_place, open_executor
    from edgead.comparison.grid import command_lines, plan_grid
    from edgead.errors import EdgeadError
    from edgead.evaluation.report import check_report_packages
    from edgead.imaging.decode import check_bit_depth

    _check_methods(names)
    check_bit_depth(bit_depth)
    require_packages("train", "edgead compare", "torch", "timm", "lightning_fabric")
    check_report_packages()
    check_place(on)
    options = {
        "epochs": None if epochs is None else str(epochs),
        "teacher": teacher,
        "teacher-weights": None if teacher_weights is None else absolute_paths(teacher_weights),
        "size": size,
        "preset": value_of(preset),
        "training-precision": value_of(training_precision),
        "bit-depth": None if bit_depth is None else str(bit_depth),
    }
    given = {name: value for name, value in options.items() if value is not None}
    grid = plan_grid(data, names, seeds, given, out)
    if list_:
        for line in command_lines(grid):
            echo(line)
        return

    from edgead.comparison.figures import collect
    from edgead.comparison.page import comparison_text, write_comparison
    from edgead.comparison.run import run_grid

    with ProgressDisplay() as display:
        with open_executor(on) as executor:
            failed_cells = run_grid(grid, executor)
        comparison = collect(grid, failed_cells)
        page = write_comparison(comparison)
    echo(comparison_text(comparison))
    echo(f"time: {display.total}\npage: {page}")
    failed = [result for result in comparison.results if result.state == "failed"]
    if failed:
        raise EdgeadError(
            f"{len(failed)} of {len(grid.cells)} cells failed, the first {failed[0].cell} ({failed[0].reason})",
            hint="run the same command again",
        )
    for baseline in comparison.baselines:
        if baseline.reason is not None:
            raise EdgeadError(f"the nearest mean failed on {baseline.dataset} ({baseline.reason})")


def _check_methods(names: list[str]) -> None:
    """Raise InputError if a method or a variant is unknown."""
    from edgead.errors import InputError

    for name in names:
        method, colon, variant = name.partition(":")
        if method not in tuple(Method):
            raise InputError(
                f"unknown method {method!r}", hint=f"give --methods {','.join(Method)}, or some of them"
            )
        if colon and (method != "rstpm" or variant not in tuple(Variant)):
            raise InputError(
                f"unknown variant {name!r}", hint=f"give rstpm:VARIANT with one of {listed(tuple(Variant))}"
            )
