"""`edgead info`: describes a run or a bundle, without torch."""

from __future__ import annotations

from typing import Annotated

import typer

from edgead.cli.choices import RunOrBundle


def info(
    model: RunOrBundle,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Describe a run or a bundle.

    Prints method, teacher, parts and thresholds, size, cost, precision, verification, and training data.
    """
    from edgead.cli.describe import describe
    from edgead.cli.progress import echo
    from edgead.files.parsing import json_text

    described = describe(model)
    echo(json_text(described.to_json()) if json else described.text(), nl=not json)
