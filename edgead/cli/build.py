"""`edgead build`: from a training run, or a bundle and its images, to a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgead.cli.choices import (
    TARGETS,
    Algorithm,
    Backend,
    CalibrateOn,
    Head,
    Precision,
    Quantize,
    complete_target,
    listed,
    value_of,
)

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.engine.plan import Plan


def build(
    run: Annotated[
        Path, typer.Argument(help="The run that edgead train wrote, or a bundle.", metavar="RUN|BUNDLE")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The bundle directory to write, such as engines/x.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help=f"The machine at the line: {listed(TARGETS)}, or a TOML file of your own.",
            show_default="the backend's, or cpu",
            autocompletion=complete_target,
        ),
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="The library that runs the bundle.", show_default="the target's")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of the graph; auto keeps the fastest that decides as the model.",
            show_default="fp32, or a bundle's own",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Share of good parts that may be called defective: 0.01 is 1 in 100.",
            show_default="0.01",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="How sure to be that the rate is kept, from 0 to 1.", show_default="0.95"
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="For a bundle: the images that it was trained from; once for each part. Without them it is compiled "
            "as it is.",
            show_default="none",
        ),
    ] = None,
    head: Annotated[
        Head,
        typer.Option(
            help="The anomaly map of an engine: CUDA kernels (see edgead plugin build), or operators of the engine. "
            "auto: for tensorrt the plugin if it was compiled, standard otherwise and for version-compatible engines."
        ),
    ] = Head.AUTO,
    calibrate_on: Annotated[
        CalibrateOn | None,
        typer.Option(
            help="For int8: images to calibrate on; mixed is train and pseudo-anomaly.", show_default="mixed"
        ),
    ] = None,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="For int8: how clipping limits are chosen.", show_default="mse")
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="For int8: what is quantized.", show_default="all")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="For int8: file of the calibration.", show_default="calibration/NAME.json", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Turn a run into a verified bundle.

    The bundle is proven to decide as the trained model does, or it is not written.

    The threshold is set from the good images that training held out, on the scores of what was built.
    """
    from edgead.cli.progress import Steps, first_line

    wanted = [str(choice) for choice in (precision, target or backend) if choice is not None]
    first_line(f"building {out} from {run}" + (f" ({', '.join(wanted)})" if wanted else ""))
    from edgead.bundle import check_target
    from edgead.engine.candidate import check_target_here
    from edgead.engine.plan import Plan
    from edgead.errors import InputError
    from edgead.files.atomic import restore_directory

    if run.is_file():
        raise InputError(f"{run} is a file: give the directory that edgead train or edgead build wrote")
    restore_directory(run)
    is_bundle = (run / "manifest.json").is_file()
    if data and not is_bundle:
        raise InputError(f"{run} is no bundle: leave out --data, a run knows its own images")
    of_images = {
        "--precision": precision,
        "--false-alarm-rate": false_alarm_rate,
        "--confidence": confidence,
        "--calibrate-on": calibrate_on,
        "--algorithm": algorithm,
        "--quantize": quantize,
        "--cache": cache,
    }
    given = [option for option, value in of_images.items() if value is not None]
    if is_bundle and not data and given:
        raise InputError(
            f"{run} is a bundle: give the images that it was trained from, with --data, or leave out "
            f"{' and '.join(given)} to compile it as it is"
        )
    plan = Plan.parse(
        backend=value_of(backend),
        target=target,
        precision=value_of(precision),
        quantize=value_of(quantize),
        calibrate_on=value_of(calibrate_on),
        algorithm=value_of(algorithm),
        cache=cache,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
        head=str(head),
    )
    check_target(out)
    check_target_here(plan)
    with Steps() as steps:
        bundle = _from_bundle(run, data or [], out, plan) if is_bundle else _from_run(run, out, plan)
    typer.echo("\n".join([*_report(bundle), f"time         {steps.total}"]))
    thresholds = bundle.manifest.thresholds
    for part, threshold in thresholds.items():
        if (warning := threshold.warning()) is not None:
            typer.echo(f"warning: {f'{part}: ' if len(thresholds) > 1 else ''}{warning}", err=True)


def _from_bundle(model: Path, data: list[Path], out: Path, plan: Plan) -> Bundle:
    from edgead.bundle import open_bundle
    from edgead.engine.rebuild import rebuild_bundle, recompile_bundle

    if not data:
        return recompile_bundle(open_bundle(model), out, plan)
    return rebuild_bundle(open_bundle(model), data, out, plan)


def _from_run(run: Path, out: Path, plan: Plan) -> Bundle:
    from edgead.cli.packages import require_packages
    from edgead.engine.build import build_bundle
    from edgead.errors import needs_extra

    require_packages("train", "edgead build", "torch", "onnxscript", "onnxsim")
    with needs_extra("train", "edgead build"):
        from edgead.training.run import open_run
    return build_bundle(open_run(run), out, plan)


def _report(bundle: Bundle) -> list[str]:
    from edgead.engine.fidelity import table

    manifest = bundle.manifest
    verification, thresholds = manifest.verification, manifest.thresholds
    several = len(thresholds) > 1
    lines = [
        f"{rung['rung']:20} {'kept' if rung['holds'] else rung.get('error', 'over budget')}"
        for rung in verification.get("ladder", ())
    ]
    lines.append(
        f"{'verified' if manifest.verified else 'graph'}     {manifest.precision} for {manifest.recipe} against "
        f"{verification['reference']}, {sum(judged['n'] for judged in verification['parts'].values())} images"
    )
    for part, judged in verification["parts"].items():
        lines += [f"{part}, {judged['n']} images"] if several else []
        lines += [f"  {line}" for line in table(judged, judged["limits"])]
    if not manifest.verified:
        lines.append(
            "engine       not run on this machine: the device compares it with the golden answers at its start"
        )
    size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    for part, threshold in thresholds.items():
        lines.append(
            f"threshold    {threshold.value:.4g} for a false-alarm rate of {threshold.false_alarm_rate:g}"
            + (f" of {part}" if several else "")
        )
    lines.append(f"bundle       {bundle.path} ({size_mb:.1f} MB)")
    return lines
