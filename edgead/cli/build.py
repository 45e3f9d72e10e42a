"""`edgead build`: a training run, or a bundle and its pictures, in; a verified bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.engine.plan import Plan


def build(
    run: Annotated[
        Path, typer.Argument(help="The run that edgead train wrote, or a bundle.", metavar="RUN|BUNDLE")
    ],
    out: Annotated[Path, typer.Option(help="The bundle directory to write, such as engines/x.")],
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be called defective: 0.01 is 1 in 100.", show_default="0.01"
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="How sure to be that the share is kept, from 0 to 1.", show_default="0.95"),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="For a bundle: the pictures that it was trained from; once for each part. Without them it is compiled "
            "as it is.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime, tensorrt or tensorrt-rtx.", show_default="the recipe's")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The target: cpu, rtx-desktop, jetson-orin, jetson-thor, datacenter, or a TOML file.",
            show_default="the backend's, or cpu",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, int8, or auto: the fastest that decides as the model.",
            show_default="fp32, or a bundle's own",
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="The anomaly map of an engine: plugin (CUDA kernels, see edgead plugin build), standard, or auto: "
            "for tensorrt the plugin if it was compiled, standard for tensorrt-rtx and what is version-compatible."
        ),
    ] = "auto",
    calibrate_on: Annotated[
        str | None,
        typer.Option(
            help="For int8: train, noise, pseudo-anomaly, or mixed (train and pseudo-anomaly).",
            show_default="mixed",
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help="For int8: minmax, entropy, percentile or mse.", show_default="mse"),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="For int8: all, or student alone.", show_default="all")
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

    The threshold is set from the good pictures that training held out, on the scores of what was built.
    """
    from edgead.atomic import restore_directory
    from edgead.engine.plan import Plan
    from edgead.errors import InputError

    plan = Plan.parse(
        backend=backend,
        recipe=recipe,
        precision=precision or "fp32",
        quantize=quantize or "all",
        calibrate_on=calibrate_on or "mixed",
        algorithm=algorithm or "mse",
        cache=cache,
        false_alarm_rate=0.01 if false_alarm_rate is None else false_alarm_rate,
        confidence=0.95 if confidence is None else confidence,
        head=head,
    )
    if run.is_file():
        raise InputError(f"{run} is a file: give the directory that edgead train or edgead build wrote")
    restore_directory(run)
    is_bundle = (run / "manifest.json").is_file()
    if data and not is_bundle:
        raise InputError(f"{run} is no bundle: leave out --data, a run knows its own pictures")
    of_pictures = {
        "--precision": precision,
        "--false-alarm-rate": false_alarm_rate,
        "--confidence": confidence,
        "--calibrate-on": calibrate_on,
        "--algorithm": algorithm,
        "--quantize": quantize,
        "--cache": cache,
    }
    given = [option for option, value in of_pictures.items() if value is not None]
    if is_bundle and not data and given:
        raise InputError(
            f"{run} is a bundle: give the pictures that it was trained from, with --data, or leave out "
            f"{' and '.join(given)} to compile it as it is"
        )
    bundle = _from_bundle(run, data or [], out, plan) if is_bundle else _from_run(run, out, plan)
    typer.echo("\n".join(_report(bundle)))
    thresholds = bundle.manifest.thresholds
    for part, threshold in thresholds.items():
        if (warning := threshold.warning()) is not None:
            typer.echo(f"warning: {f'{part}: ' if len(thresholds) > 1 else ''}{warning}", err=True)


def _from_bundle(model: Path, data: list[Path], out: Path, plan: Plan) -> Bundle:
    from edgead.bundle import open_bundle
    from edgead.engine.rebuild import rebuild_bundle, recompile_bundle

    if not data:
        return recompile_bundle(open_bundle(model), out, plan, _say)
    return rebuild_bundle(open_bundle(model), data, out, plan, _say)


def _from_run(run: Path, out: Path, plan: Plan) -> Bundle:
    from edgead.engine.build import build_bundle
    from edgead.errors import needs_extra

    with needs_extra("train", "edgead build"):
        from edgead.train.run import open_run
    return build_bundle(open_run(run), out, plan, _say)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _report(bundle: Bundle) -> list[str]:
    from edgead.engine.verify import table

    manifest = bundle.manifest
    verification, thresholds = manifest.verification, manifest.thresholds
    several = len(thresholds) > 1
    lines = [
        f"{rung['rung']:20} {'kept' if rung['holds'] else rung.get('error', 'over budget')}"
        for rung in verification.get("ladder", ())
    ]
    lines.append(
        f"{'verified' if manifest.verified else 'graph'}     {manifest.precision} for {manifest.recipe} against "
        f"{verification['reference']}, {sum(judged['n'] for judged in verification['parts'].values())} pictures"
    )
    for part, judged in verification["parts"].items():
        lines += [f"{part}, {judged['n']} pictures"] if several else []
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
