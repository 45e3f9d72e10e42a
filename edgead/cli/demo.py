"""`edgead demo`: all steps once on synthetic parts, and a page with the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import Kind


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the page, the data, the run and the bundle.")
    ] = Path("demo"),
    kind: Annotated[Kind, typer.Option(help="Kind of part.")] = Kind.WASHER,
) -> None:
    """Show all steps on synthetic parts.

    Draws parts, trains, builds, evaluates and streams, offline, and writes a page with the results.

    The same command again continues a demo that was killed, or writes the page again.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line
    from edgead.errors import needs_extra
    from edgead.files.packages import require_packages

    first_line(f"showing all steps on synthetic parts ({kind}) in {out}")
    require_packages("train", "edgead demo", "torch", "timm", "lightning_fabric")
    with needs_extra("train", "edgead demo"):
        from edgead.demo.run import run_demo

    with ProgressDisplay():
        page = run_demo(out, str(kind))
    echo(f"page: {page}")
