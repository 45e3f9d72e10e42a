"""The devices, the precision and the logger of a training, by Lightning Fabric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from lightning_fabric.utilities.exceptions import MisconfigurationException

from edgead.errors import InputError
from edgead.files.packages import require_packages

ACCELERATORS = ("auto", "cpu", "cuda")
TENSORBOARD_FOLDER = "tensorboard"
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True, slots=True)
class FabricConfig:
    """The devices that a training runs on. The result depends on them only by rounding.

    Attributes:
        accelerator: "auto", "cpu" or "cuda".
        devices: Number of processes on each machine.
        nodes: Number of machines, joined by `fabric run` or torchrun.
        tensorboard: Whether the losses of each epoch are also written for TensorBoard.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    tensorboard: bool = False


def create_fabric(config: FabricConfig, precision: str | None, out: Path | None = None) -> tuple[Fabric, str]:
    """Start Fabric on this machine.

    Args:
        config: The devices.
        precision: One of PRECISIONS; None selects "32-true" on a CPU and mixed precision on a GPU.
        out: Run directory, in which TensorBoard's files lie.

    Returns:
        The launched Fabric and the name of its precision.

    Raises:
        InputError: A name is unknown, or the machine has no such devices.
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    cuda = torch.cuda.is_available()
    if config.accelerator not in ACCELERATORS:
        raise InputError(
            f"unknown accelerator {config.accelerator!r}",
            hint=f"give --accelerator {' or '.join(ACCELERATORS)}",
        )
    if config.devices < 1 or config.nodes < 1:
        raise InputError(
            f"{config.devices} devices on {config.nodes} machines",
            hint="give --devices and --nodes of 1 or more",
        )
    if config.accelerator == "cuda" and not cuda:
        raise InputError(
            "--accelerator cuda, but PyTorch finds no CUDA device on this machine",
            hint="run edgead doctor, or give --accelerator cpu",
        )
    accelerator = "cuda" if cuda and config.accelerator != "cpu" else "cpu"
    if precision is None:
        mixed = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "16-mixed"
        precision = mixed if accelerator == "cuda" else "32-true"
    if precision not in PRECISIONS:
        raise InputError(
            f"unknown training precision {precision!r}",
            hint=f"give --training-precision {' or '.join(PRECISIONS)}",
        )
    if (accelerator, precision) == ("cpu", "16-mixed"):
        raise InputError(
            "a CPU does not train in 16-mixed", hint="give --training-precision 32-true or bf16-mixed"
        )
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision=precision,
            loggers=_loggers(config, out),
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot train on {config.devices} x {accelerator} in {precision} ({str(error).splitlines()[0]})",
            hint="change --devices, --accelerator or --training-precision",
        ) from error
    fabric.launch()
    return fabric, precision


def _loggers(config: FabricConfig, out: Path | None) -> list[TensorBoardLogger]:
    if not config.tensorboard or out is None:
        return []
    require_packages("tensorboard", "--tensorboard", "tensorboard")
    return [TensorBoardLogger(out, name=TENSORBOARD_FOLDER, version="")]
