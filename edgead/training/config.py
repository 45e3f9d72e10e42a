"""The configuration of a training. The run stores it, so that a later start can check that it is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgead.bundle.part_names import check_part_names
from edgead.data import Dataset, open_dataset
from edgead.errors import InputError
from edgead.imaging.decode import check_bit_depth
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.models.base import ALIGNMENTS, PRESETS, STANDARD_VARIANT
from edgead.models.components.teacher import DEFAULT_TEACHER
from edgead.models.rd import LOSSES
from edgead.scoring.hold_out import AUTO, hold_out_count
from edgead.scoring.threshold import check_rate
from edgead.text import folder_name
from edgead.training.schedule import Schedule
from edgead.types import Fusion

# The largest seed that every random number generator accepts.
MAX_SEED = 2**32 - 1

# Textures that are generated instead of read from image files.
PROCEDURAL = "procedural"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings that determine the result of a training. The machine is not one of them.

    Attributes:
        data: Absolute paths of the datasets, one for each part. The name of a part is the name of its folder,
            see `edgead.text.folder_name`.
        layout: Folder layout of the datasets: "auto", "mvtec", "btad", "visa" or "folder".
        method: Name of the method, such as "rd".
        variant: Variant of the method.
        preset: Preset of the method, "edge" or "paper". Its hyperparameters set the learning-rate schedule and the
            smoothing of the map, and are the defaults of the epochs, batch size, learning rate and loss.
        teacher: timm's name of the teacher.
        teacher_weights: Source of the teacher's weights: "package", "hub", "random" or a file.
        size: Image size of the model in pixels: "256" or "256x320" (height x width).
        epochs: Number of epochs.
        batch_size: Number of images in a batch of one process.
        learning_rate: Peak of the one-cycle schedule, or the constant learning rate.
        loss: One of the method's losses.
        alignment: Alignment of the parts: "aligned", "unaligned", or "auto" to determine it from the good images.
        textures: Textures of pseudo-anomalies: "procedural" or the absolute path of a folder of images.
        seed: Seed of the hold-out, the initial weights and the order of the images.
        skip_broken: Whether to skip image files that cannot be read.
        bit_depth: Depth of the values of image files with samples of 16 bits, 10, 12 or 14; None for 16 bits, or the
            depth that a file records.
        training_precision: "32-true", "16-mixed" or "bf16-mixed".
        hold_out: Number or share of each part's good images that are held out for the threshold, "30" or "0.3", or
            "auto", see `edgead.scoring.hold_out`.
        false_alarm_rate: Largest share of good parts above the threshold of the run.
        view: Part of an image that the model inspects, and the way to its size.
        fusion: How the head joins the scales, "add" or "multiply".
        early_stop: Number of epochs without a lower held-out loss after which the training ends; None for all epochs.
        base: Absolute path of the run that this one goes on with; empty for a training from the start.

    Raises:
        InputError: A value is out of range.
    """

    data: tuple[str, ...]
    layout: str = "auto"
    method: str = "rd"
    variant: str = STANDARD_VARIANT
    preset: str = PRESETS[0]
    teacher: str = DEFAULT_TEACHER
    teacher_weights: str = "package"
    size: str = "256"
    epochs: int = 50
    batch_size: int = 4
    learning_rate: float = 5e-3
    loss: str = LOSSES[0]
    alignment: str = "auto"
    textures: str = PROCEDURAL
    seed: int = 0
    skip_broken: bool = False
    bit_depth: int | None = None
    training_precision: str = "32-true"
    hold_out: str = AUTO
    false_alarm_rate: float = 0.01
    view: View = WHOLE
    fusion: Fusion = "add"
    early_stop: int | None = None
    base: str = ""

    def __post_init__(self) -> None:
        check_part_names([folder_name(Path(folder)) for folder in self.data])
        self.view.check_tiles(ModelSize.parse(self.size))
        check_bit_depth(self.bit_depth)
        check_rate(self.false_alarm_rate)
        hold_out_count(1, self.hold_out, self.false_alarm_rate)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name.replace('_', ' ')} is {getattr(self, name)}",
                    hint=f"give --{name.replace('_', '-')} 1 or more",
                )
        if self.early_stop is not None and self.early_stop < 1:
            raise InputError(f"early stop is {self.early_stop}", hint="give --early-stop 5, for example")
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}", hint=f"give --preset {' or '.join(PRESETS)}")
        if self.alignment not in ("auto", *ALIGNMENTS):
            raise InputError(
                f"unknown alignment {self.alignment!r}",
                hint=f"give --alignment auto, {' or '.join(ALIGNMENTS)}",
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}", hint=f"give --seed a number from 0 to {MAX_SEED}")
        if not 0.0 < self.learning_rate <= 1.0:
            raise InputError(
                f"learning rate {self.learning_rate} is not between 0 and 1",
                hint="give --learning-rate 0.005, for example",
            )

    @property
    def parts(self) -> dict[str, Path]:
        """Dataset folders by name of the part."""
        return {folder_name(Path(folder)): Path(folder) for folder in self.data}

    def open_datasets(self) -> dict[str, Dataset]:
        """Open the datasets, by name of the part.

        Returns:
            The datasets; their images are read at `bit_depth` and through `view`.

        Raises:
            DataError: A dataset is missing, empty or of no known layout.
        """
        return {
            name: open_dataset(root, self.layout).read_as(self.bit_depth, self.view)
            for name, root in self.parts.items()
        }

    @property
    def schedule(self) -> Schedule:
        """The settings that the training loop needs."""
        return Schedule(self.epochs, self.batch_size, self.learning_rate, self.seed, self.early_stop)
