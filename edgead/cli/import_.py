"""edgead import: a checkpoint of anomalib or RD4AD to a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint: .ckpt, .pt or .pth.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="The dataset it was trained on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to write.")],
    teacher_weights: Annotated[
        str | None,
        typer.Option(
            metavar="hub|FILE",
            help="Of RD4AD, whose checkpoint has the student alone: torchvision's ResNet.",
            show_default="hub",
        ),
    ] = None,
) -> None:
    """Take over a model that was trained elsewhere.

    Reverse Distillation and STFPM of anomalib, and RD4AD, become a run that edgead build takes. Nothing in FILE is
    executed.
    """
    from edgead.cli.progress import ProgressDisplay, first_line
    from edgead.errors import needs_extra
    from edgead.files.packages import require_packages

    first_line(f"importing {file} into {out}")
    require_packages("train", "edgead import", "torch", "timm")
    # What needs no torch is refused before the seconds that its import takes.
    from edgead.data import open_dataset
    from edgead.files.atomic import check_directory

    check_directory(out)
    open_dataset(data)
    with needs_extra("train", "edgead import"):
        from edgead.importers.run import import_run

    with ProgressDisplay():
        run = import_run(file, data, out, teacher_weights)
    typer.echo(f"run in {run.path}")
