"""What one training is asked to do; written into the run, so that a later start knows whether it is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.bundle.part_names import check_part_names
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models.base import ALIGNMENTS, PRESETS, STANDARD_VARIANT
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.models.rd import LOSSES
from edgead.training.schedule import Schedule

# What every generator of random numbers takes.
MAX_SEED = 2**32 - 1

# Textures that are drawn and not read.
PROCEDURAL = "procedural"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings that the result of a training depends on; where it runs is not one of them.

    data: absolute paths of the datasets, one for each part, which is called as its folder. variant: of the method.
    preset: whose hyperparameters schedules the learning rate and smooths the map; `epochs`, `batch_size`,
    `learning_rate` and `loss` are what was taken from that hyperparameters or given instead. learning_rate: peak of the
    one-cycle schedule, or all there is of a constant one. alignment: `auto` finds it from the good images. textures: of
    pseudo-anomalies, `procedural` or the absolute path of a folder of images. Raises InputError for a value out of
    range.
    """

    data: tuple[str, ...]
    layout: str = "auto"
    method: str = "rd"
    variant: str = STANDARD_VARIANT
    preset: str = PRESETS[0]
    teacher: str = DEFAULT_TEACHER
    teacher_weights: str = "package"
    size: str = "256"
    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 5e-3
    loss: str = LOSSES[0]
    alignment: str = "auto"
    textures: str = PROCEDURAL
    seed: int = 0
    skip_broken: bool = False
    training_precision: str = "32-true"

    def __post_init__(self) -> None:
        check_part_names([Path(folder).name for folder in self.data])
        ModelSize.parse(self.size)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', ' ')} is {getattr(self, name)}: give 1 or more")
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}: give --preset {' or '.join(PRESETS)}")
        if self.alignment not in ("auto", *ALIGNMENTS):
            raise InputError(
                f"unknown alignment {self.alignment!r}: give --alignment auto, {' or '.join(ALIGNMENTS)}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}: give a number from 0 to {MAX_SEED}")
        if not 0.0 < self.learning_rate <= 1.0:
            raise InputError(
                f"learning rate {self.learning_rate} is not between 0 and 1: give 0.005, for example"
            )

    @property
    def parts(self) -> dict[str, Path]:
        """The dataset of each part, by the part's name."""
        return {Path(folder).name: Path(folder) for folder in self.data}

    @property
    def schedule(self) -> Schedule:
        """What the training loop needs."""
        return Schedule(self.epochs, self.batch_size, self.learning_rate, self.seed)
