"""`edgead info`: what a run or a bundle is, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE", help="What edgead train or edgead build wrote.", show_default=False
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a run or a bundle is.

    Method, teacher, parts and thresholds, size, cost, precision, verification, and what it was trained on.
    """
    from json import dumps

    from edgead.cli.model_info import describe

    described = describe(model)
    typer.echo(dumps(described.to_json(), indent=2) if json else described.text())
