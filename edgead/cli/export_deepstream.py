"""`edgead export-deepstream`: writes a bundle for DeepStream's element nvinfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import BundleDirectory


def export_deepstream(
    bundle: BundleDirectory,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory to write: new, empty, or an earlier export.")
    ],
) -> None:
    """Write a bundle for DeepStream's element nvinfer.

    Its README says what the application does with the scores.
    """
    from edgead.cli.progress import echo, first_line

    first_line(f"exporting {bundle}")
    from edgead.bundle import open_bundle
    from edgead.files.lock import exclusive
    from edgead.other_runtimes.deepstream import CONFIG
    from edgead.other_runtimes.deepstream import export_deepstream as export

    opened = open_bundle(bundle)
    with exclusive(out):
        export(opened, out)
    echo(f"nvinfer      {out / CONFIG}")
    echo(f"application  {out / 'README.md'}")
