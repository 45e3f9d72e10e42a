"""`edgead train`: trains a model on images of good parts, one folder for each part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgead.cli.choices import (
    TEACHERS,
    Accelerator,
    Alignment,
    BitDepth,
    Layout,
    Method,
    Preset,
    TrainingPrecision,
    Variant,
    complete_teacher,
    listed,
    value_of,
)


def train(
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
        str, typer.Option(metavar="N|HxW", help="Image size in pixels, multiples of 32.")
    ] = "256",
    layout: Annotated[Layout, typer.Option(help="Folder layout of DATA.")] = Layout.AUTO,
    alignment: Annotated[
        Alignment,
        typer.Option(help="Alignment of the parts: all the same, or any; auto measures it on the images."),
    ] = Alignment.AUTO,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of epochs.", show_default="the preset's; rd: 50"),
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
            "--false-alarm-rate needs, from a tenth to a third. With linear, auto holds out none and cross-fits all.",
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
) -> None:
    """Train on images of good parts. The same command again continues a training that was killed.

    Several folders train one model for several parts. A part's name is the name of its folder, and each part has its
    own threshold.
    """
    from edgead.cli.interrupt import says_on_interrupt
    from edgead.cli.progress import ProgressDisplay, first_line, report
    from edgead.files.packages import require_packages
    from edgead.files.progress import is_first_process

    first_line(f"training {method} on {' and '.join(folder.name or str(folder) for folder in data)}")
    require_packages("train", "edgead train", "torch", "timm", "lightning_fabric")
    from edgead.api import train as start

    with says_on_interrupt(lambda: _kept(out)), ProgressDisplay():
        start(
            data,
            out,
            method=str(method),
            variant=str(variant),
            preset=str(preset),
            teacher=teacher,
            teacher_weights=teacher_weights,
            size=size,
            layout=str(layout),
            alignment=str(alignment),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
            textures=textures,
            seed=seed,
            hold_out=hold_out,
            false_alarm_rate=false_alarm_rate,
            skip_broken=skip_broken,
            bit_depth=bit_depth,
            accelerator=str(accelerator),
            devices=devices,
            nodes=nodes,
            training_precision=value_of(training_precision),
        )
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
