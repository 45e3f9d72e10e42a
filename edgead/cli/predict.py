"""`edgead predict`: scores image files and videos with a run or a bundle, into a table, JSON lines and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgead.cli.choices import RunOrBundle, Save, complete_save, listed

if TYPE_CHECKING:
    from edgead.prediction.run import Summary


def _kinds(text: str) -> str:
    """Check the list of `--save`, and return it in the order of `Save`, each kind once."""
    kinds = text.split(",") if text else []
    for kind in kinds:
        if kind not in tuple(Save):
            raise typer.BadParameter(f"{kind!r} is not one of {listed(tuple(Save))}")
    return ",".join(kind for kind in Save if kind in kinds)


def predict(
    model: RunOrBundle,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Image files, folders of images, patterns such as 'parts/*.png', and videos.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the results: new, empty, or to continue.")
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Read the folders below each folder, too.")
    ] = False,
    save: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help=f"Images to save for each image, with commas between: {listed(tuple(Save))}.",
            show_default="none",
            callback=_kinds,
            autocompletion=complete_save,
        ),
    ] = "",
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the part on the images, if the model has several parts.",
            show_default="the only one",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Decision threshold to use; edgead threshold sets the one of a bundle.",
            show_default="the model's",
        ),
    ] = None,
) -> None:
    """Score images and videos into a table.

    Writes predictions.csv and predictions.jsonl. The same command continues after an interrupt. Images that cannot be
    read are listed without a verdict, and the exit code is 5 then.
    """
    from edgead.cli.progress import ProgressDisplay, echo, first_line

    first_line(f"predicting with {model}")
    from edgead.api import load
    from edgead.errors import IncompleteError
    from edgead.files.lock import exclusive
    from edgead.prediction.inputs import find_inputs
    from edgead.prediction.record import check_out, model_digest
    from edgead.prediction.run import predict_files
    from edgead.scoring.threshold import check_value

    if threshold is not None:
        check_value(threshold)
    kinds = save.split(",") if save else []
    with ProgressDisplay():
        inputs = find_inputs(images, recursive, out)
        check_out(out)
        with exclusive(out), load(model, threshold=threshold) as opened:
            summary = predict_files(opened, model_digest(model), inputs, out, part=part, save=kinds)
    for line in _lines(summary):
        echo(line)
    counts = summary.counts
    if counts.failed:
        raise IncompleteError(
            f"{counts.failed} of {counts.images} images have no verdict, the first is {counts.first_failed}",
            hint=f"the column error of {summary.table} has the reasons",
        )


def _lines(summary: Summary) -> list[str]:
    """Describe the results."""
    counts, threshold = summary.counts, summary.threshold
    failed = f", {counts.failed} without a verdict" if counts.failed else ""
    return [
        f"images     {counts.images}: {counts.good} good, {counts.anomalous} anomalous{failed}",
        f"threshold  {threshold.value:.6g} ({threshold.source}), part {threshold.part}",
        f"table      {summary.table}",
    ]
