"""`edgead compare`: several methods on several parts, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Datasets with test pictures, one folder a part.")
    ],
    methods: Annotated[str, typer.Option(help="Methods of edgead train, joined by commas: rd,stfpm.")],
    out: Annotated[Path, typer.Option(help="Directory for the comparison and all that leads to it.")],
    seeds: Annotated[int, typer.Option(help="Trainings of each method on each dataset: seeds 0, 1, ...")] = 3,
    epochs: Annotated[int | None, typer.Option(help="As of edgead train, and so are the next five.")] = None,
    teacher: Annotated[str | None, typer.Option()] = None,
    teacher_weights: Annotated[str | None, typer.Option(metavar="package|hub|random|FILE")] = None,
    size: Annotated[str | None, typer.Option(metavar="N|HxW")] = None,
    preset: Annotated[str | None, typer.Option(metavar="edge|paper")] = None,
    precision: Annotated[str | None, typer.Option(metavar="32-true|16-mixed|bf16-mixed")] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="Print a line for a shell for each cell that is left, and train nothing."
        ),
    ] = False,
) -> None:
    """Compare methods on datasets, some seeds each: train, build and evaluate, then write one page.

    A cell is one dataset, method and seed. The same command again continues a comparison that was killed, tries
    failed cells again and leaves alone what is done. Cells may be done elsewhere: --list | parallel, for example;
    then the same command without --list puts the figures together.
    """
    from edgead.compare import command_lines, plan_grid, run_grid
    from edgead.errors import EdgeadError, needs_extra
    from edgead.report import check_report_packages

    with needs_extra("train", "edgead compare"):
        from edgead.models import method_class

    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        method_class(name)
    check_report_packages()
    options = {
        "epochs": None if epochs is None else str(epochs),
        "teacher": teacher,
        "teacher-weights": None if teacher_weights is None else _from_anywhere(teacher_weights),
        "size": size,
        "preset": preset,
        "precision": precision,
    }
    given = {name: value for name, value in options.items() if value is not None}
    grid = plan_grid(data, names, seeds, given, out)
    if list_:
        for line in command_lines(grid):
            typer.echo(line)
        return

    from edgead.compare_figures import collect
    from edgead.compare_page import write_comparison

    comparison = collect(grid, run_grid(grid, _say), _say)
    typer.echo(f"page: {write_comparison(comparison)}")
    failed = [result for result in comparison.results if result.state == "failed"]
    if failed:
        raise EdgeadError(
            f"{len(failed)} of {len(grid.cells)} cells failed, the first {failed[0].cell}: {failed[0].reason}; "
            "the same command tries them again"
        )
    for baseline in comparison.baselines:
        if baseline.reason is not None:
            raise EdgeadError(f"the nearest mean failed on {baseline.dataset}: {baseline.reason}")


def _from_anywhere(weights: str) -> str:
    """The same weights with files by their whole path, since a listed line may be run in any directory."""
    return ",".join(
        str(Path(part).resolve()) if Path(part).is_file() else part for part in weights.split(",")
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)
