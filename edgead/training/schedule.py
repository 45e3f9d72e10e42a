"""The epochs of a training: their division into stages, their end, and the check for enough images and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgead.data.stored_images import Images
from edgead.errors import InputError, TrainingError
from edgead.models import hyperparameters_of
from edgead.models.base import DistillationMethod
from edgead.training.features import host_tensor

EPOCHS_SHARE = 5
RATE_SHARE = 5.0
"""Going on with finished weights takes a fifth of the learning rate, and an update a fifth of the epochs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The settings that the training loop needs.

    Attributes:
        epochs: Number of epochs.
        batch_size: Number of images in a batch of one process.
        learning_rate: Peak of the one-cycle schedule, or the constant learning rate.
        seed: Seed of the order of the images and of the random numbers of a method.
        early_stop: Number of epochs without a lower held-out loss after which the training ends; None for all epochs.
        begun: Number of epochs that were finished before; the optimiser and the learning rate begin after them.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    early_stop: int | None = None
    begun: int = 0


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


def check_one_stage(method: str, preset: str, doing: str, hint: str) -> None:
    """Check that a method trains one network, whose training may end early or go on.

    Args:
        method: Name of the method.
        preset: Its preset.
        doing: Beginning of the message: what needs it.
        hint: How to do without.

    Raises:
        InputError: The method trains in several stages.
    """
    stages = hyperparameters_of(method, preset).stages
    if len(stages) > 1:
        raise InputError(f"{doing}, and {method} is trained in {len(stages)} stages", hint=hint)


def stops_early(losses: Sequence[float], early_stop: int | None) -> bool:
    """Return whether a training ends because its held-out loss did not get lower.

    Args:
        losses: Held-out loss after each epoch so far.
        early_stop: Number of epochs without a lower loss after which the training ends; None for no such end.

    Example:
        >>> stops_early([0.5, 0.4, 0.41, 0.4], 2), stops_early([0.5, 0.4, 0.41, 0.39], 2)
        (True, False)
    """
    if early_stop is None or len(losses) <= early_stop:
        return False
    return min(losses[-early_stop:]) >= min(losses[:-early_stop])


def check_training(
    method: DistillationMethod, schedule: Schedule, images: Images | Tensor, processes: int
) -> None:
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
    smallest = min(schedule.batch_size, len(images) // processes)
    if smallest < 1:
        raise TrainingError(
            f"{len(images)} good images to train on are too few for {processes} processes",
            hint="give more images or fewer --devices",
        )
    # Batch normalisation needs two values per channel, and two images give them at every resolution.
    if smallest == 1 and _fewest_values(method, host_tensor(images, slice(1))) < 2:
        raise TrainingError(
            f"a batch of 1 image of {images.shape[1]}x{images.shape[2]} is too small for batch normalisation",
            hint="give more images, a larger --batch-size or a larger --size",
        )


@torch.no_grad()
def _fewest_values(method: DistillationMethod, image: Tensor) -> int:
    """Smallest number of values per channel that a trained batch normalisation gets of one image (1, H, W, 3)."""
    counts, was_training = [2], method.training
    method.train()
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0][0, 0].numel()))
        for layer in method.modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.training
    ]
    # The seed of the training must not depend on this pass.
    with torch.random.fork_rng(devices=[]):
        method.eval()
        features = method.teacher_features(image)
        for stage in reversed(range(len(method.hyperparameters.stages))):
            method.enter_stage(stage)
            method(image, features)
        method.train(was_training)
    for hook in hooks:
        hook.remove()
    return min(counts)
