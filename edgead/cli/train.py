"""edgead train: pictures of good parts to a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with pictures of good parts.")],
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
    epochs: Annotated[int, typer.Option(help="Epochs to train.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Pictures per batch and device.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 5e-3,
    loss: Annotated[str, typer.Option(help="hard-positions, per-position or flattened.")] = "hard-positions",
    pose: Annotated[
        str,
        typer.Option(metavar="auto|fixed|free", help="How the parts lie; auto finds out from the pictures."),
    ] = "auto",
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
    """Train on pictures of good parts. The same command again continues a training that was killed."""
    from edgead.errors import needs_extra

    with needs_extra("train", "edgead train"):
        from edgead.train.config import TrainConfig
        from edgead.train.progress import TrainingProgress
        from edgead.train.training import Machine, open_machine, train_run

    fabric, precision_used = open_machine(Machine(accelerator, devices, nodes), precision)
    config = TrainConfig(
        data=str(data.resolve()),
        layout=layout,
        method=method,
        teacher=teacher,
        teacher_weights=teacher_weights,
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        loss=loss,
        pose=pose,
        seed=seed,
        skip_broken=skip_broken,
        precision=precision_used,
    )
    with TrainingProgress(enabled=fabric.is_global_zero) as progress:
        train_run(config, out, fabric, progress.say, progress.update)
        progress.say(f"run in {out}")
