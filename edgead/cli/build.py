"""`edgead build`: builds a verified bundle from a training run, or from a bundle and its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def build(
    run: Annotated[
        Path, typer.Argument(help="Run that edgead train wrote, or a bundle.", metavar="RUN|BUNDLE")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Bundle directory to write, such as engines/x.")],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help=f"Machine on the production line: {listed(TARGETS)}, or a TOML file of your own.",
            show_default="the backend's, or cpu",
            autocompletion=complete_target,
        ),
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="Library that runs the bundle.", show_default="the target's")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of the graph; auto keeps the fastest that decides as the model. "
            "int8 is not for tensorrt-rtx.",
            show_default="fp32, or a bundle's own",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Share of good parts that may be rejected: 0.01 is 1 in 100.",
            show_default="the run's or the bundle's",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Confidence that the rate is kept, from 0 to 1.",
            show_default="0.95, or the bundle's",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="For a bundle: dataset that it was trained on; once for each part. Without it the bundle is compiled "
            "as it is.",
            show_default="none",
        ),
    ] = None,
    head: Annotated[
        Head,
        typer.Option(
            help="Anomaly map of an engine: CUDA kernels (see edgead plugin build), or operators of the engine. "
            "auto: for tensorrt the plugin if it was compiled, standard otherwise and for version-compatible engines."
        ),
    ] = Head.AUTO,
    calibrate_on: Annotated[
        CalibrateOn | None,
        typer.Option(
            help="For int8: images to calibrate on; mixed is train and defects.", show_default="mixed"
        ),
    ] = None,
    algorithm: Annotated[
        Algorithm | None,
        typer.Option(help="For int8: algorithm that chooses the clipping limits.", show_default="mse"),
    ] = None,
    quantize: Annotated[
        Quantize | None,
        typer.Option(help="For int8: quantize the whole model, or the student only.", show_default="all"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="For int8: calibration file.", show_default="calibration/NAME.json", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Build a verified bundle from a run.

    The bundle is written only if it is verified to decide as the trained model does.

    The threshold is computed from the scores of the built model on the good images that training held out or
    cross-fitted.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line

    wanted = [str(choice) for choice in (precision, target or backend) if choice is not None]
    first_line(f"building {out} from {run}" + (f" ({', '.join(wanted)})" if wanted else ""))
    from edgead.api import build as build_from

    with ProgressDisplay(timed=True) as display:
        bundle = build_from(
            run,
            out,
            target=target,
            backend=value_of(backend),
            precision=value_of(precision),
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            data=data or None,
            head=str(head),
            calibrate_on=value_of(calibrate_on),
            algorithm=value_of(algorithm),
            quantize=value_of(quantize),
            cache=cache,
        )
    echo("\n".join([*_report(bundle), f"time         {display.total}"]))


def _of_candidate(tried: Mapping[str, Any], kept: str | None) -> str:
    """Return the line of one candidate precision: whether it was kept and why not, and its median time."""
    name = tried["candidate_precision"]
    if not tried["holds"]:
        return f"{name:20} {tried.get('error', 'out of tolerance')}"
    timed = f", p50 {tried['p50_ms']:.3g} ms" if "p50_ms" in tried else ""
    return f"{name:20} {'kept' if name == kept else 'slower'}{timed}"


def _report(bundle: Bundle) -> list[str]:
    """Return the lines of the report: candidates, verification, thresholds, and the path of the bundle."""
    from edgead.engine.refusal import table

    manifest = bundle.manifest
    verification, thresholds = manifest.verification, manifest.thresholds
    several = len(thresholds) > 1
    kept = verification.get("candidate_precision")
    lines = [_of_candidate(tried, kept) for tried in verification.get("fallback_order", ())]
    lines.append(
        f"{'verified' if manifest.verified else 'graph'}     {manifest.precision} for {manifest.target} against "
        f"{verification['reference']}, {sum(judged['n'] for judged in verification['parts'].values())} images"
    )
    for part, judged in verification["parts"].items():
        lines += [f"{part}, {judged['n']} images"] if several else []
        lines += [f"  {line}" for line in table({"measured": judged}, judged["limits"])]
    if not manifest.verified:
        lines.append(
            "engine       not run on this machine: the device compares it with the golden answers at its start"
        )
    size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    for part, threshold in thresholds.items():
        lines.append(
            f"threshold    {threshold.value:.4g}"
            + (
                ""
                if threshold.false_alarm_rate is None
                else f" for a false-alarm rate of {threshold.false_alarm_rate:g}"
            )
            + (f" of {part}" if several else "")
        )
    lines.append(f"bundle       {bundle.path} ({size_mb:.1f} MB)")
    return lines
