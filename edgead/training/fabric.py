"""Where a training runs: the devices and the precision that Lightning Fabric is started with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from edgead.errors import InputError

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True, slots=True)
class FabricConfig:
    """Where a training runs; the result does not depend on it beyond rounding.

    accelerator: `auto`, `cpu` or `cuda`. devices, nodes: processes per machine, and machines; machines are joined by
    `fabric run` or torchrun.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1


def create_fabric(config: FabricConfig, precision: str | None) -> tuple[Fabric, str]:
    """Start Fabric on a machine; give it and the precision it trains in.

    precision: one of PRECISIONS, or None for `32-true` on a CPU and mixed precision on a GPU. Raises InputError for an
    unknown name, and when the machine has no such device.
    """
    cuda = torch.cuda.is_available()
    if config.accelerator not in ACCELERATORS:
        raise InputError(f"unknown accelerator {config.accelerator!r}: give {' or '.join(ACCELERATORS)}")
    if config.devices < 1 or config.nodes < 1:
        raise InputError(
            f"{config.devices} devices on {config.nodes} machines: give --devices and --nodes of 1 or more"
        )
    if config.accelerator == "cuda" and not cuda:
        raise InputError(
            "--accelerator cuda, but PyTorch finds no CUDA device here: see edgead doctor, or give cpu"
        )
    accelerator = "cuda" if cuda and config.accelerator != "cpu" else "cpu"
    if precision is None:
        mixed = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "16-mixed"
        precision = mixed if accelerator == "cuda" else "32-true"
    if precision not in PRECISIONS:
        raise InputError(
            f"unknown training precision {precision!r}: give --training-precision {' or '.join(PRECISIONS)}"
        )
    if (accelerator, precision) == ("cpu", "16-mixed"):
        raise InputError("a CPU does not train in 16-mixed: give --training-precision 32-true or bf16-mixed")
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision=precision,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot train on {config.devices} x {accelerator} in {precision}: {str(error).splitlines()[0]}"
        ) from error
    fabric.launch()
    return fabric, precision
