"""`edgead eval`: how well a run or a bundle tells defects from good parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgead.cli.choices import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgead.imaging.preprocess import ModelSize
    from edgead.runtime.base import Session
    from edgead.scoring.threshold import Threshold


def eval_(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE", help="What edgead train or edgead build wrote.", show_default=False
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A dataset with good and defect images to test on.", show_default=False
        ),
    ],
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which part DATA is of, where the model knows several.",
            show_default="the only one, or DATA's name",
        ),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Folder layout of DATA.")] = Layout.AUTO,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for report.html and results.json.", show_default="none"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out and count images that cannot be read.")
    ] = False,
) -> None:
    """Measure a run or a bundle on test images.

    Prints a table; with --out it writes a page with curves and heat maps too.
    """
    from edgead.cli.progress import first_line, show_scored

    first_line(f"evaluating {model} on {data}")
    from json import dumps

    from edgead.bundle.part_names import choose_part
    from edgead.data import open_dataset
    from edgead.errors import CollapseError, DataError, InputError
    from edgead.evaluation.evaluate import evaluate, score_dataset
    from edgead.evaluation.report import check_report_packages, results_json, text_report, write_report
    from edgead.files.atomic import check_directory

    if not _is_model(model) and _is_model(data):
        raise InputError(f"{data} is the model and {model} the data: edgead eval {data} {model}")
    if out is not None:
        check_report_packages()
        check_directory(out)
    dataset = open_dataset(data, str(layout))
    if not dataset.test:
        raise DataError(
            f"no images to score: {data} ({dataset.layout}) has good images to train on only; give a dataset "
            "with test images, such as test/good and test/DEFECT"
        )
    opened = _open(model)
    with opened.session as session:
        chosen = choose_part(opened.thresholds, part, dataset.name)
        scores = score_dataset(session, dataset.test, opened.size, skip_broken, progress=show_scored)
    evaluation = evaluate(scores, opened.thresholds[chosen])
    details = {"model": opened.description, "data": f"{data} ({dataset.layout})"}
    if len(opened.thresholds) > 1:
        details["part"] = chosen
    if json:
        typer.echo(dumps(results_json(evaluation, scores, details), indent=2, allow_nan=False))
    else:
        for label, text in details.items():
            typer.echo(f"{label:<18} {text}")
        typer.echo(text_report(evaluation))
    if evaluation.threshold is not None and (warning := evaluation.threshold.warning()):
        typer.echo(f"warning: {warning}", err=True)
    if out is not None:
        typer.echo(f"report: {write_report(out, evaluation, scores, details)}", err=json)
    if evaluation.collapse is not None:
        raise CollapseError(
            f"{model} failed on {data}: {evaluation.collapse}; train longer or with another teacher"
        )


@dataclass(frozen=True)
class _Opened:
    session: Session
    size: ModelSize
    thresholds: Mapping[str, Threshold | None]
    description: str


def _open(model: Path) -> _Opened:
    """Open a run (it holds run.json) or a bundle (it holds manifest.json)."""
    from edgead.errors import InputError, needs_extra
    from edgead.files.atomic import restore_directory

    restore_directory(model)
    if (model / "run.json").is_file():
        with needs_extra("train", "edgead eval of a run"):
            from edgead.training.run import open_run
        run = open_run(model)
        return _Opened(
            run.session(), run.size, run.thresholds, f"{model} (run: {run.method_name}, {run.teacher_name})"
        )
    if (model / "manifest.json").is_file():
        from edgead.bundle import open_bundle
        from edgead.runtime import open_session

        bundle = open_bundle(model)
        manifest = bundle.manifest
        description = f"{model} (bundle: {manifest.method}, {manifest.teacher}, {manifest.precision})"
        return _Opened(open_session(bundle), manifest.size, manifest.thresholds, description)
    if not model.exists():
        raise InputError(f"{model} does not exist: give a directory that edgead train or edgead build wrote")
    raise InputError(
        f"{model} is neither a run (run.json) nor a bundle (manifest.json): "
        "give a directory that edgead train or edgead build wrote"
    )


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("run.json", "manifest.json"))
