"""`edgead eval`: how well a run or a bundle tells defects from good parts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgead.preprocess import ModelSize
    from edgead.runtime.base import Session
    from edgead.threshold import Threshold


def eval_(
    model: Annotated[
        Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="What edgead train or edgead build wrote.")
    ],
    data: Annotated[Path, typer.Argument(help="A dataset with good and defect pictures to test on.")],
    part: Annotated[
        str | None,
        typer.Option(
            help="Which part DATA is of, where the model knows several.", show_default="DATA's name"
        ),
    ] = None,
    layout: Annotated[str, typer.Option(help="Folder layout: auto, mvtec, btad, visa or folder.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Directory for report.html and results.json.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out and count pictures that cannot be read.")
    ] = False,
) -> None:
    """Measure a run or a bundle on test pictures.

    Prints a table; with --out it writes a page with curves and heat maps too.
    """
    from json import dumps

    from edgead.atomic import check_directory
    from edgead.data import open_dataset
    from edgead.errors import CollapseError, DataError
    from edgead.evaluate import evaluate, score_dataset
    from edgead.part import choose_part
    from edgead.report import check_report_packages, results_json, text_report, write_report

    if out is not None:
        check_report_packages()
        check_directory(out)
    dataset = open_dataset(data, layout)
    if not dataset.test:
        raise DataError(
            f"no pictures to score: {data} ({dataset.layout}) has good pictures to train on only; give a dataset "
            "with test pictures, such as test/good and test/DEFECT"
        )
    opened = _open(model)
    with opened.session as session:
        chosen = choose_part(opened.thresholds, part, dataset.name)
        scores = score_dataset(session, dataset.test, opened.size, skip_broken, progress=_show_progress)
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
    from edgead.atomic import restore_directory
    from edgead.errors import InputError, needs_extra

    restore_directory(model)
    if (model / "run.json").is_file():
        with needs_extra("train", "edgead eval of a run"):
            from edgead.train.run import open_run
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


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\rscored {done} of {total} pictures", nl=done == total, err=True)
