"""The division of a training's epochs into stages, and the check for enough images and epochs to begin."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgead.errors import TrainingError
from edgead.models.base import DistillationMethod


@dataclass(frozen=True, slots=True)
class Schedule:
    """The settings that the training loop needs.

    Attributes:
        epochs: Number of epochs.
        batch_size: Number of images in a batch of one process.
        learning_rate: Peak of the one-cycle schedule, or the constant learning rate.
        seed: Seed of the order of the images and of the random numbers of a method.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


def stage_ends(shares: tuple[float, ...], epochs: int) -> list[int]:
    """Divide the epochs among the stages by their shares, rounded. Every stage has at least one epoch.

    Args:
        shares: Share of each stage; any positive numbers.
        epochs: Number of epochs of the whole training.

    Returns:
        Number of finished epochs at the end of each stage.

    Raises:
        TrainingError: There are fewer epochs than stages.
    """
    stages = len(shares)
    if epochs < stages:
        raise TrainingError(
            f"the method trains in {stages} stages, which --epochs {epochs} is too few for",
            hint=f"give --epochs {stages} or more",
        )
    ends: list[int] = []
    for stage in range(1, stages + 1):
        first, last = (ends[-1] + 1 if ends else 1), epochs - (stages - stage)
        ends.append(min(max(round(epochs * sum(shares[:stage]) / sum(shares)), first), last))
    return ends


def check_training(method: DistillationMethod, schedule: Schedule, images: Tensor, processes: int) -> None:
    """Check that there are enough epochs and images to begin.

    Args:
        method: The method to train.
        schedule: Epochs and batch size.
        images: Training images, (N, H, W, 3).
        processes: Number of processes that train together.

    Raises:
        TrainingError: There are too few epochs or images.
    """
    stage_ends(method.hyperparameters.stages, schedule.epochs)
    _check_batch(schedule.batch_size, images, processes)


def _check_batch(batch_size: int, images: Tensor, processes: int) -> None:
    """Raise TrainingError unless batch normalisation gets two values per channel of each batch at stride 32."""
    smallest = min(batch_size, len(images) // processes)
    if smallest < 1:
        raise TrainingError(
            f"{len(images)} good images to train on are too few for {processes} processes",
            hint="give more images or fewer --devices",
        )
    if smallest * (images.shape[1] // 32) * (images.shape[2] // 32) < 2:
        raise TrainingError(
            f"a batch of 1 image of {images.shape[1]}x{images.shape[2]} is too small for batch normalisation",
            hint="give more images, a larger --batch-size or a larger --size",
        )
