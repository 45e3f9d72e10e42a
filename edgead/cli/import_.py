"""`edgead import`: converts a checkpoint of anomalib or RD4AD to a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import BitDepth


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint: .ckpt, .pt or .pth.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Dataset that the model was trained on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to write.")],
    teacher_weights: Annotated[
        str | None,
        typer.Option(
            metavar="hub|FILE",
            help="For RD4AD: weights of torchvision's ResNet, because the checkpoint has the student only.",
            show_default="hub",
        ),
    ] = None,
    bit_depth: BitDepth = None,
) -> None:
    """Import a model that was trained elsewhere.

    Converts Reverse Distillation and STFPM of anomalib, and RD4AD, to a run for edgead build. Nothing in FILE is
    executed.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line
    from edgead.errors import needs_extra
    from edgead.files.packages import require_packages

    first_line(f"importing {file} into {out}")
    require_packages("train", "edgead import", "torch", "timm")
    # Checks that need no torch come first, because its import takes seconds.
    from edgead.data import open_dataset
    from edgead.files.atomic import check_directory
    from edgead.files.lock import exclusive
    from edgead.imaging.decode import check_bit_depth

    check_bit_depth(bit_depth)
    check_directory(out)
    open_dataset(data)
    with ProgressDisplay(), exclusive(out):
        with needs_extra("train", "edgead import"):
            from edgead.importers.run import import_run
        run = import_run(file, data, out, teacher_weights, bit_depth)
    echo(f"run in {run.path}")
