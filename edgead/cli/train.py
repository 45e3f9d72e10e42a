"""`edgead train`: trains a model on images of good parts, one folder for each part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgead.cli.choices import (
    TEACHERS,
    Accelerator,
    Alignment,
    BitDepth,
    Fit,
    Fusion,
    Layout,
    Method,
    On,
    Preset,
    TrainingPrecision,
    Variant,
    complete_teacher,
    listed,
    value_of,
)
from edgead.cli.command import named_options


def train(
    context: typer.Context,
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="Folder with images of good parts; several folders train one model for all parts.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to write, or to continue.")],
    method: Annotated[Method, typer.Option(help="Distillation method.")] = Method.RD,
    variant: Annotated[
        Variant, typer.Option(help="Variant of the method; rstpm has all, every other method only the first.")
    ] = Variant.STANDARD,
    preset: Annotated[
        Preset,
        typer.Option(
            help="Hyperparameters: tuned for few images and small teachers, or as published with the method."
        ),
    ] = Preset.EDGE,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Any convolutional network of timm: {listed(TEACHERS)}, ...",
            autocompletion=complete_teacher,
        ),
    ] = TEACHERS[0],
    teacher_weights: Annotated[
        str, typer.Option(metavar="package|hub|random|FILE", help="Source of the teacher's weights.")
    ] = "package",
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Image size in pixels, multiples of 32.", show_default="256"),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Finished run to go on with, if DATA has new images. It is not changed.",
            show_default="none",
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Size of tiles in pixels, in place of --size: inspects images at their full resolution.",
            show_default="no tiles",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Smallest overlap of tiles in pixels.", show_default="32"),
    ] = None,
    fit: Annotated[
        Fit,
        typer.Option(
            help="Way to the size: stretch both sides, pad the shorter, crop the longer one, or turn each part "
            "on a plain ground along the longer side."
        ),
    ] = Fit.STRETCH,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H|'X,Y X,Y ...'",
            help="Region of interest in pixels of the image: a rectangle, or the corners of a polygon.",
            show_default="the whole image",
        ),
    ] = None,
    ignore: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Image of the size of the images, not black where they are ignored.",
            show_default="none",
        ),
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Folder layout of DATA.")] = Layout.AUTO,
    alignment: Annotated[
        Alignment,
        typer.Option(help="Alignment of the parts: all the same, or any; auto measures it on the images."),
    ] = Alignment.AUTO,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of epochs; more of them extend a finished run.",
            show_default="the preset's; rd: 50",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of images per batch and device.",
            show_default="the preset's; rd: 4",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Highest learning rate of the schedule.",
            show_default="the preset's; rd: 0.005",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Loss of the method; for rd: hard-positions, per-position or flattened.",
            show_default="the preset's; rd: hard-positions",
        ),
    ] = None,
    fusion: Annotated[
        Fusion | None,
        typer.Option(help="How rd and rd++ join their scales.", show_default="add"),
    ] = None,
    early_stop: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="End after N epochs without a lower loss of the held-out images.",
            show_default="all epochs",
        ),
    ] = None,
    textures: Annotated[
        str,
        typer.Option(
            metavar="procedural|DIR", help="Textures of pseudo-anomalies: drawn, or images of a folder."
        ),
    ] = "procedural",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the hold-out, the initial weights and the order.")
    ] = 0,
    hold_out: Annotated[
        str,
        typer.Option(
            metavar="auto|N|SHARE",
            help="Good images that are held out for the threshold: a number, a share, or auto: as many as "
            "--false-alarm-rate needs with two unusual ones among them, from a tenth to a third. With linear, auto "
            "holds out none and cross-fits all.",
        ),
    ] = "auto",
    false_alarm_rate: Annotated[
        float,
        typer.Option(
            metavar="RATE", help="Share of good parts that may be called defective; 0.01 is 1 in 100."
        ),
    ] = 0.01,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip and count unreadable images.")
    ] = False,
    bit_depth: BitDepth = None,
    accelerator: Annotated[Accelerator, typer.Option(help="Device to train on.")] = Accelerator.AUTO,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of processes on this machine.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of machines, joined by fabric run or torchrun.")
    ] = 1,
    training_precision: Annotated[
        TrainingPrecision | None,
        typer.Option(help="Precision of the training.", show_default="32-true on a CPU, mixed on a GPU"),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also write the losses for TensorBoard, into DIR/tensorboard."),
    ] = False,
    each: Annotated[
        bool,
        typer.Option("--each", help="Train one model for each folder in DATA, into a folder of --out each."),
    ] = False,
    on: On = None,
) -> None:
    """Train on images of good parts. The same command again continues a training that was killed.

    Several folders train one model for several parts. A part's name is the name of its folder, and each part has its
    own threshold.
    """
    from edgead.cli.interrupt import says_on_interrupt
    from edgead.cli.progress import ProgressDisplay, first_line, report
    from edgead.cli.train_each import train_each
    from edgead.files.packages import require_packages
    from edgead.files.progress import is_first_process

    if each or on is not None:
        train_each(context, data, out)
        return

    doing = f"training {method}" if from_ is None else f"going on with {from_}"
    first_line(f"{doing} on {' and '.join(folder.name or str(folder) for folder in data)}")
    require_packages("train", "edgead train", "torch", "timm", "lightning_fabric")
    from edgead.api import train as start

    options: dict[str, Any] = {
        "method": str(method),
        "variant": str(variant),
        "preset": str(preset),
        "teacher": teacher,
        "teacher_weights": teacher_weights,
        "size": size,
        "base": from_,
        "tile": tile,
        "overlap": overlap,
        "fit": str(fit),
        "roi": roi,
        "ignore": ignore,
        "layout": str(layout),
        "alignment": str(alignment),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss,
        "fusion": value_of(fusion),
        "early_stop": early_stop,
        "textures": textures,
        "seed": seed,
        "hold_out": hold_out,
        "false_alarm_rate": false_alarm_rate,
        "skip_broken": skip_broken,
        "bit_depth": bit_depth,
        "accelerator": str(accelerator),
        "devices": devices,
        "nodes": nodes,
        "training_precision": value_of(training_precision),
        "tensorboard": tensorboard,
    }
    if from_ is not None:
        # What is not named is the run's, not this command's default.
        named = named_options(context)
        options = {name: value for name, value in options.items() if name in named or name == "base"}
    with says_on_interrupt(lambda: _kept(out)), ProgressDisplay():
        start(data, out, **options)
    if is_first_process():
        report(f"run in {out}")


def _kept(out: Path) -> str:
    """Describe the kept state of an interrupted training and the way to continue."""
    from edgead.training.checkpoint import read_checkpoint
    from edgead.training.run import CHECKPOINT_FILE

    checkpoint = read_checkpoint(out / CHECKPOINT_FILE)
    if checkpoint is None:
        return f"no epoch was finished, so {out} keeps none; the same command starts again"
    return f"{out} keeps the training up to epoch {checkpoint.epoch}; the same command continues it"
