"""`edgead build`: a training run in, a verified bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def build(
    run: Annotated[Path, typer.Argument(help="The run that edgead train wrote.")],
    out: Annotated[Path, typer.Option(help="The bundle directory to write, such as engines/x.")],
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be called defective: 0.01 is 1 in 100.")
    ] = 0.01,
    confidence: Annotated[
        float, typer.Option(help="How sure to be that the share is kept, from 0 to 1.")
    ] = 0.95,
) -> None:
    """Turn a run into a verified bundle.

    The bundle is proven to decide as the trained model does, or it is not written.

    The threshold is set from the good pictures that training held out.
    """
    from edgead.engine.build import build_bundle
    from edgead.errors import MissingExtraError

    try:
        from edgead.train.run import open_run
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "edgead build") from error

    bundle = build_bundle(
        open_run(run), out, false_alarm_rate, confidence, progress=lambda line: typer.echo(line, err=True)
    )
    threshold, verification = bundle.manifest.threshold, bundle.manifest.verification
    size_mb = sum(entry.bytes for entry in bundle.manifest.files.values()) / 1e6
    typer.echo(
        f"verified     {verification['n']} pictures: maps within {verification['map_error_max']:.1e}, "
        f"{verification['decision_flips']} decisions differ"
    )
    typer.echo(f"threshold    {threshold.value:.4g} for a false-alarm rate of {threshold.false_alarm_rate:g}")
    typer.echo(f"bundle       {bundle.path} ({size_mb:.1f} MB)")
    if (warning := threshold.warning()) is not None:
        typer.echo(f"warning: {warning}", err=True)
