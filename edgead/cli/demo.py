"""`edgead demo`: everything once, on drawn parts, ending in a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the page and all that leads to it.")] = Path("demo"),
    kind: Annotated[str, typer.Option(help="Kind of part: washer, pcb, fabric or tablet.")] = "washer",
) -> None:
    """Show the whole line on drawn parts.

    Draws parts, trains, builds, evaluates and streams, offline, and writes a page that shows it all.

    The same command again continues where it was killed, or makes the page anew.
    """
    from edgead.errors import needs_extra

    with needs_extra("train", "edgead demo"):
        from edgead.demo import run_demo
        from edgead.train.progress import TrainingProgress

    with TrainingProgress(enabled=True) as progress:
        page = run_demo(out, kind, progress.say, progress.update)
    typer.echo(f"page: {page}")
