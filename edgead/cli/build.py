"""`edgead build`: a training run, or a bundle and its pictures, in; a verified bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.engine.lower import Lowering


def build(
    run: Annotated[
        Path, typer.Argument(help="The run that edgead train wrote, or an fp32 bundle.", metavar="RUN|BUNDLE")
    ],
    out: Annotated[Path, typer.Option(help="The bundle directory to write, such as engines/x.")],
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good parts that may be called defective: 0.01 is 1 in 100.")
    ] = 0.01,
    confidence: Annotated[
        float, typer.Option(help="How sure to be that the share is kept, from 0 to 1.")
    ] = 0.95,
    data: Annotated[
        Path | None,
        typer.Option(help="For a bundle: the pictures that it was trained from.", show_default=False),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    calibrate_on: Annotated[
        str, typer.Option(help="For int8: train, noise, pseudo-anomaly, or mixed (train and pseudo-anomaly).")
    ] = "mixed",
    algorithm: Annotated[str, typer.Option(help="For int8: minmax, entropy, percentile or mse.")] = "mse",
    quantize: Annotated[str, typer.Option(help="For int8: all, or student alone.")] = "all",
    cache: Annotated[
        Path | None,
        typer.Option(
            help="For int8: file of the calibrated ranges.",
            show_default="calibration/NAME.json",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Turn a run into a verified bundle.

    The bundle is proven to decide as the trained model does, or it is not written.

    The threshold is set from the good pictures that training held out, on the scores of what was built.
    """
    from edgead.atomic import restore_directory
    from edgead.engine.lower import Lowering
    from edgead.engine.verify import table
    from edgead.errors import InputError

    lowering = Lowering.parse(precision, calibrate_on, algorithm, quantize, cache)
    restore_directory(run)
    is_bundle = (run / "manifest.json").is_file()
    if is_bundle != (data is not None):
        raise InputError(
            f"{run} is a bundle: give the pictures that it was trained from, with --data"
            if is_bundle
            else f"{run} is no bundle: leave out --data, a run knows its own pictures"
        )
    bundle = _build(run, data, out, lowering, false_alarm_rate, confidence)
    threshold, verification = bundle.manifest.threshold, bundle.manifest.verification
    size_mb = sum(entry.bytes for entry in bundle.manifest.files.values()) / 1e6
    typer.echo(f"verified     {precision} against {verification['reference']}, {verification['n']} pictures")
    for line in table(verification, verification["limits"]):
        typer.echo(f"  {line}")
    typer.echo(f"threshold    {threshold.value:.4g} for a false-alarm rate of {threshold.false_alarm_rate:g}")
    typer.echo(f"bundle       {bundle.path} ({size_mb:.1f} MB)")
    if (warning := threshold.warning()) is not None:
        typer.echo(f"warning: {warning}", err=True)


def _build(
    model: Path, data: Path | None, out: Path, lowering: Lowering, false_alarm_rate: float, confidence: float
) -> Bundle:
    def say(line: str) -> None:
        typer.echo(line, err=True)

    if data is not None:
        from edgead.bundle import open_bundle
        from edgead.engine.rebuild import rebuild_bundle

        return rebuild_bundle(open_bundle(model), data, out, lowering, false_alarm_rate, confidence, say)

    from edgead.engine.build import build_bundle
    from edgead.errors import needs_extra

    with needs_extra("train", "edgead build"):
        from edgead.train.run import open_run
    return build_bundle(open_run(model), out, false_alarm_rate, confidence, say, lowering)
