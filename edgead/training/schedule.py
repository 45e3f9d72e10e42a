"""How a training's epochs and batches are divided, and whether there are images and epochs enough to begin."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgead.errors import TrainingError
from edgead.models.base import DistillationMethod


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the training loop needs of a configuration.

    Attributes:
        epochs: Number of epochs.
        batch_size: Images in one batch of one process.
        learning_rate: Peak of the one-cycle schedule, or the constant learning rate.
        seed: Decides the order of the images and what a method draws at random.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


def stage_ends(shares: tuple[float, ...], epochs: int) -> list[int]:
    """Divide the epochs among the stages: by their shares, rounded, and no stage without an epoch.

    Args:
        shares: Share of the epochs of each stage; any positive numbers.
        epochs: Number of epochs of the whole training.

    Returns:
        Number of epochs that are done at the end of each stage.

    Raises:
        TrainingError: If there are fewer epochs than stages.
    """
    stages = len(shares)
    if epochs < stages:
        raise TrainingError(
            f"the method is trained in {stages} stages, for which --epochs {epochs} has no room: give --epochs "
            f"{stages} or more"
        )
    ends: list[int] = []
    for stage in range(1, stages + 1):
        first, last = (ends[-1] + 1 if ends else 1), epochs - (stages - stage)
        ends.append(min(max(round(epochs * sum(shares[:stage]) / sum(shares)), first), last))
    return ends


def check_training(method: DistillationMethod, schedule: Schedule, images: Tensor, processes: int) -> None:
    """Raise TrainingError where the epochs or the images, (N, H, W, 3), are too few to begin."""
    stage_ends(method.hyperparameters.stages, schedule.epochs)
    _check_batch(schedule.batch_size, images, processes)


def _check_batch(batch_size: int, images: Tensor, processes: int) -> None:
    """Raise TrainingError unless every batch gives batch normalisation two values a channel at stride 32."""
    smallest = min(batch_size, len(images) // processes)
    if smallest < 1:
        raise TrainingError(
            f"{len(images)} good images to train on for {processes} processes: give more images or fewer --devices"
        )
    if smallest * (images.shape[1] // 32) * (images.shape[2] // 32) < 2:
        raise TrainingError(
            f"a batch of 1 image of {images.shape[1]}x{images.shape[2]} is too little for batch normalisation: give "
            "more images, a larger --batch-size or a larger --size"
        )
