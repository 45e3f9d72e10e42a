"""`edgead export-triton`: writes a bundle as a model of a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import BundleDirectory


def export_triton(
    bundle: BundleDirectory,
    out: Annotated[
        Path, typer.Option(metavar="REPO", help="Model repository: new, empty, or with other models.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the model.", show_default="name of the bundle's directory"
        ),
    ] = None,
) -> None:
    """Write a bundle as a model of a Triton model repository.

    The model warms up with the golden images. Its README says what the client does.
    """
    from edgead.cli.progress import echo, first_line

    first_line(f"exporting {bundle}")
    from edgead.bundle import open_bundle
    from edgead.files.lock import exclusive
    from edgead.other_runtimes.triton import export_triton as export

    opened = open_bundle(bundle)
    with exclusive(out):
        model = export(opened, out, name)
    echo(f"model    {model.path}, for Triton's backend {model.backend}, batches of 1 to {model.max_batch}")
    if model.notes:
        echo(f"server   {model.notes}")
    echo(f"client   {model.path / 'README.md'}")
