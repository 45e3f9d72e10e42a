"""`edgead threshold`: shows and sets the threshold of a bundle, without training and without torch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgead.cli.choices import BundleDirectory, Layout

if TYPE_CHECKING:
    from edgead.bundle import Bundle
    from edgead.evaluation.threshold_setting import GoodAndDefects, Wish


def threshold(
    bundle: BundleDirectory,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Dataset with test images of good parts and of defects.",
            show_default="none",
        ),
    ] = None,
    good: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images of good parts that the model was not trained on.",
            show_default="none",
        ),
    ] = None,
    defects: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of images of defects, beside --good.", show_default="none"),
    ] = None,
    join: Annotated[
        bool,
        typer.Option("--join", help="Count the images that set the threshold of the build beside --good."),
    ] = False,
    best_f1: Annotated[
        bool, typer.Option("--best-f1", help="Set the threshold with the largest F1.")
    ] = False,
    recall: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Set the highest threshold that finds this share of the defects.",
            show_default="not set",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Set the threshold that at most this share of good parts exceeds, from the good images.",
            show_default="the build's, with --good alone",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Confidence that the false-alarm rate is kept.", show_default="the build's"
        ),
    ] = None,
    value: Annotated[
        float | None, typer.Option(metavar="X", help="Set this threshold.", show_default="not set")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Restore the threshold before the last change.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the part, if the bundle has several parts.",
            show_default="the only one, or DATA's name",
        ),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Folder layout of DATA.")] = Layout.AUTO,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip image files that cannot be read.")
    ] = False,
) -> None:
    """Show or set the threshold of a bundle.

    Without options it shows the threshold and its origin. With images of good parts it sets the threshold for a
    false-alarm rate. With labelled images it prints what each threshold finds, and sets one of them on request.
    """
    from edgead.bundle import open_bundle
    from edgead.bundle.part_names import choose_part
    from edgead.bundle.set_threshold import change_threshold, undo_change
    from edgead.cli.progress import ProgressDisplay, echo
    from edgead.cli.threshold_text import origin_lines, table_lines
    from edgead.data.layouts import dataset_path
    from edgead.evaluation.threshold_setting import new_threshold, with_cross_fitted
    from edgead.files.lock import exclusive
    from edgead.scoring.operating_points import LabelledScores
    from edgead.text import folder_name

    wish = _wish(
        {
            "--best-f1": best_f1 or None,
            "--recall": recall,
            "--false-alarm-rate": false_alarm_rate,
            "--value": value,
        },
        confidence,
        join,
    )
    if undo and (wish or data or good or defects or join or confidence is not None):
        raise _conflict("--undo comes with other options", "give --undo alone, or with --part")
    samples = _samples(data, good, defects, str(layout))
    labelled = samples is not None and bool(samples.defects)
    wish = _fitting(wish, samples, confidence, join)
    # A bundle that is only read may lie in a folder without rights to write.
    with exclusive(bundle) if undo or wish is not None else nullcontext():
        opened = open_bundle(bundle)
        named = None if data is None else folder_name(dataset_path(data))
        name = choose_part(opened.manifest.thresholds, part, named)
        if undo:
            opened = undo_change(opened, name)
        elif samples is not None or wish is not None:
            with ProgressDisplay():
                good_scores, bad_scores, files = _scored(opened, samples, skip_broken)
                scores = with_cross_fitted(opened, name, good_scores), bad_scores
                if labelled:
                    table = LabelledScores(*(list(of_kind.values()) for of_kind in scores))
                    for line in table_lines(table, opened.manifest.thresholds[name].value):
                        echo(line)
                if wish is not None:
                    new = new_threshold(opened, name, wish, *scores, files)
                    opened = change_threshold(opened, name, *new)
    for line in origin_lines(opened.manifest, name):
        echo(line)
    if labelled and wish is None:
        echo("nothing was set; give --best-f1, --recall, --false-alarm-rate or --value")


def _conflict(what: str, hint: str) -> Exception:
    from edgead.errors import InputError

    return InputError(what, hint=hint)


def _wish(rules: dict[str, float | None], confidence: float | None, join: bool) -> Wish | None:
    """Return the rule of the options; None if no option gives one."""
    from edgead.evaluation.threshold_setting import Wish

    given = {name: number for name, number in rules.items() if number is not None}
    if len(given) > 1:
        raise _conflict(f"{' and '.join(given)} are given together", "give one of them")
    if "--best-f1" in given:
        return Wish("best-f1")
    if "--recall" in given:
        return Wish("recall", given["--recall"])
    if "--value" in given:
        return Wish("value", given["--value"])
    if "--false-alarm-rate" in given:
        return Wish("false-alarm-rate", given["--false-alarm-rate"], confidence, join)
    return None


def _samples(
    data: Path | None, good: Path | None, defects: Path | None, layout: str
) -> GoodAndDefects | None:
    """List the images of the options; None if there are none."""
    from edgead.evaluation.threshold_setting import samples_of_dataset, samples_of_folders

    if data is not None and (good is not None or defects is not None):
        raise _conflict("DATA comes with --good or --defects", "give DATA, or --good and --defects")
    if data is not None:
        return samples_of_dataset(data, layout)
    if good is not None:
        return samples_of_folders(good, defects)
    if defects is not None:
        raise _conflict("--defects comes without --good", "add --good DIR, because a threshold needs both")
    return None


def _fitting(
    wish: Wish | None, samples: GoodAndDefects | None, confidence: float | None, join: bool
) -> Wish | None:
    """Check that the rule fits the images, and return the default rule of good images alone."""
    from edgead.evaluation.threshold_setting import Wish

    labelled = samples is not None and bool(samples.defects)
    if samples is not None and not labelled and wish is None:
        return Wish("false-alarm-rate", None, confidence, join)
    rule = None if wish is None else wish.rule
    if rule in ("best-f1", "recall") and not labelled:
        kind = "good parts only" if samples is not None else "no images"
        raise _conflict(f"--{rule} with {kind}", "give DATA, or --good DIR and --defects DIR")
    if rule == "false-alarm-rate" and samples is None:
        raise _conflict("--false-alarm-rate without images", "give --good DIR with images of good parts")
    if rule != "false-alarm-rate" and (join or confidence is not None):
        name = "--join" if join else "--confidence"
        raise _conflict(f"{name} without a false-alarm rate", f"leave out {name}, or give --false-alarm-rate")
    return wish


def _scored(
    bundle: Bundle, samples: GoodAndDefects | None, skip_broken: bool
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Score the good images and the defects; the third dictionary has the files of the good images."""
    from edgead.evaluation.threshold_setting import score_images
    from edgead.runtime import open_session

    if samples is None:
        return {}, {}, {}
    manifest = bundle.manifest
    with open_session(bundle) as session:
        good, files = score_images(session, samples.good, manifest, skip_broken)
        if not samples.defects:
            return good, {}, files
        defects, _ = score_images(session, samples.defects, manifest, skip_broken)
    return good, defects, files
