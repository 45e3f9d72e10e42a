"""`edgead info`: describes a run or a bundle, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="Directory that edgead train or edgead build wrote.",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Describe a run or a bundle.

    Prints method, teacher, parts and thresholds, size, cost, precision, verification, and training data.
    """
    from json import dumps

    from edgead.cli.describe import describe

    described = describe(model)
    typer.echo(dumps(described.to_json(), indent=2) if json else described.text())
