"""edgead train: pictures of good parts, a folder for each part, to a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...", help="Folder with pictures of good parts; several for one model of all."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory to write, or to continue.")],
    layout: Annotated[str, typer.Option(help="auto, mvtec, btad, visa or folder.")] = "auto",
    method: Annotated[str, typer.Option(help="Distillation method.")] = "rd",
    teacher: Annotated[str, typer.Option(help="timm's name of the teacher.")] = "tf_efficientnet_lite0",
    teacher_weights: Annotated[
        str, typer.Option(metavar="package|hub|random|FILE", help="Where the teacher's weights come from.")
    ] = "package",
    size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Picture size in pixels, multiples of 32.")
    ] = "256",
    preset: Annotated[
        str, typer.Option(metavar="edge|paper", help="What the next four and the smoothing are unless given.")
    ] = "edge",
    epochs: Annotated[int | None, typer.Option(help="Epochs to train; rd: 100.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per batch and device; rd: 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule; rd: 0.005.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="One of the method's; rd: hard-positions, per-position or flattened.")
    ] = None,
    alignment: Annotated[
        str,
        typer.Option(metavar="auto|fixed|free", help="How the parts lie; auto finds out from the pictures."),
    ] = "auto",
    textures: Annotated[
        str,
        typer.Option(
            metavar="procedural|DIR",
            help="What pseudo-anomalies are made of: drawn, or pictures of a folder.",
        ),
    ] = "procedural",
    seed: Annotated[int, typer.Option(help="Decides the hold-out, the start and the order.")] = 0,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip and count unreadable pictures.")
    ] = False,
    accelerator: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines, joined by fabric run or torchrun.")] = 1,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="32-true|16-mixed|bf16-mixed", help="Default: 32-true on a CPU, mixed on a GPU."
        ),
    ] = None,
) -> None:
    """Train on pictures of good parts. The same command again continues a training that was killed.

    Several folders train one model for several parts, each called as its folder and with a threshold of its own.
    """
    from edgead.errors import needs_extra

    with needs_extra("train", "edgead train"):
        from edgead.models import recipe_of
        from edgead.train.config import PROCEDURAL, TrainConfig
        from edgead.train.machine import Machine, open_machine
        from edgead.train.progress import TrainingProgress
        from edgead.train.training import train_run

    recipe = recipe_of(method, preset)
    fabric, precision_used = open_machine(Machine(accelerator, devices, nodes), precision)
    config = TrainConfig(
        data=tuple(str(folder.resolve()) for folder in data),
        layout=layout,
        method=method,
        teacher=teacher,
        teacher_weights=teacher_weights,
        size=size,
        preset=preset,
        epochs=recipe.epochs if epochs is None else epochs,
        batch_size=recipe.batch_size if batch_size is None else batch_size,
        learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
        loss=recipe.loss if loss is None else loss,
        alignment=alignment,
        textures=textures if textures == PROCEDURAL else str(Path(textures).resolve()),
        seed=seed,
        skip_broken=skip_broken,
        precision=precision_used,
    )
    with TrainingProgress(enabled=fabric.is_global_zero) as progress:
        train_run(config, out, fabric, progress.say, progress.update)
        progress.say(f"run in {out}")
