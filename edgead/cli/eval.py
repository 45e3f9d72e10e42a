"""`edgead eval`: measures how well a run or a bundle distinguishes defects from good parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import Layout, RunOrBundle


def eval_(
    model: RunOrBundle,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Dataset with good and defective images to test on.", show_default=False
        ),
    ],
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the part in DATA, if the model has several parts.",
            show_default="the only one, or DATA's name",
        ),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Folder layout of DATA.")] = Layout.AUTO,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for report.html and results.json.", show_default="none"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip and count images that cannot be read.")
    ] = False,
) -> None:
    """Measure a run or a bundle on test images.

    Prints a table; with --out it also writes a page with all images, heat maps and a threshold to move.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line

    first_line(f"evaluating {model} on {data}")
    from edgead.api import load
    from edgead.errors import CollapseError, InputError
    from edgead.evaluation.model_evaluation import evaluate_model
    from edgead.evaluation.report import results_json, text_report
    from edgead.files.parsing import json_text
    from edgead.text import printable

    if not _is_model(model) and _is_model(data):
        raise InputError(
            f"{model} is the dataset and {data} the model", hint=f"run edgead eval {data} {model}"
        )
    with ProgressDisplay():
        found = evaluate_model(lambda: load(model), model, data, part, str(layout), skip_broken, out)
    if json:
        echo(json_text(results_json(found.evaluation, found.scores, found.details)), nl=False)
    else:
        for label, text in found.details.items():
            echo(printable(f"{label:<18} {text}"))
        echo(text_report(found.evaluation))
    if found.report is not None:
        size_mb = found.report.stat().st_size / 1e6
        echo(printable(f"report: {found.report} ({size_mb:.1f} MB)"), err=json)
    if found.evaluation.collapse is not None:
        raise CollapseError(
            f"{model} failed on {data} ({found.evaluation.collapse})",
            hint="train longer or with another teacher",
        )


def _is_model(path: Path) -> bool:
    """Return True if a directory is a run or a bundle."""
    return any((path / name).is_file() for name in ("run.json", "manifest.json"))
