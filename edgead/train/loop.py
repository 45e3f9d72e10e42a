"""The one training loop, for every method and every kind of machine (Lightning Fabric).

What the result depends on is decided by the configuration alone: the order of the pictures in an epoch, and what a
method draws at random, follow from the seed and the epoch's number, so a training that was killed and continued ends in
the same weights. A method's stages come one after the other, each with an optimiser and a schedule of its own. The
number of epochs is fixed in advance and the last weights are kept; the held-out good pictures are only watched, and no
other picture is looked at.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgead.errors import RunError, TrainingError
from edgead.models.base import DistillationMethod
from edgead.train.checkpoint import Checkpoint, CheckpointKeeper, load_student, student_state
from edgead.train.config import TrainConfig
from edgead.train.features import TeacherFeatures
from edgead.train.order import epoch_order

# A checkpoint of a large student takes seconds to write; a kill costs at most this much work and the epoch under way.
CHECKPOINT_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Progress:
    """After a batch: epochs done, share of the epoch under way, running mean loss, pictures per second."""

    epoch: int
    epochs: int
    share: float
    loss: float
    pictures_per_s: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """losses_before: held-out, of each stage. metrics: epoch, stage, loss, holdout_loss, learning_rate, seconds."""

    losses_before: list[float]
    metrics: list[dict[str, float]]


def fit(
    fabric: Fabric,
    method: DistillationMethod,
    config: TrainConfig,
    images: Tensor,
    holdout: Tensor,
    checkpoint_file: Path,
    checkpoint: Checkpoint | None,
    progress: Callable[[Progress], None],
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    counts: Sequence[int] = (),
) -> Fitted:
    """Train the student of `method` in place.

    images: (N, H, W, 3) uint8 RGB to train on, holdout: (M, H, W, 3) to watch, both on the host. checkpoint: state to
    continue from. counts: how many of `images` each part has, part after part; left out, they are of one part. Raises
    TrainingError when the pictures or the epochs are too few or the loss is not finite, RunError when the checkpoint
    was made with other pictures, or of a method built in another way. KeyboardInterrupt leaves the last
    finished epoch in the checkpoint.
    """
    with CheckpointKeeper(checkpoint_file, checkpoint_every_s) as keeper:
        return _fit(fabric, method, config, images, holdout, keeper, checkpoint, progress, counts)


def _fit(
    fabric: Fabric,
    method: DistillationMethod,
    config: TrainConfig,
    images: Tensor,
    holdout: Tensor,
    keeper: CheckpointKeeper,
    checkpoint: Checkpoint | None,
    progress: Callable[[Progress], None],
    counts: Sequence[int],
) -> Fitted:
    check_training(method, config, images, fabric.world_size)
    digest = _digest(method.textures.fingerprint, images, holdout)
    if checkpoint is not None and checkpoint.pictures != digest:
        raise RunError(
            f"the pictures in {' '.join(config.data)} changed since {keeper.file} was written: choose another "
            "--out, or remove that file to train from the start"
        )
    method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = max(1, len(images) // (config.batch_size * fabric.world_size))
    ends = stage_ends(method.recipe.stages, config)
    features = TeacherFeatures(method, images, fabric.device)
    watched = TeacherFeatures(method, holdout, fabric.device)

    epochs_done, losses_before, metrics = 0, [], []
    if checkpoint is not None:
        try:
            load_student(method, checkpoint.student)
        except RuntimeError as error:
            raise RunError(
                f"{keeper.file} is of a method that was built in another way ({error}): remove it to train "
                "from the start"
            ) from error
        epochs_done = checkpoint.epoch
        losses_before, metrics = list(checkpoint.losses_before), list(checkpoint.metrics)

    for stage, (begin, end) in enumerate(pairwise((0, *ends))):
        if epochs_done >= end:
            continue
        method.enter_stage(stage)
        optimizer = method.optimizer(config.learning_rate)
        module, wrapped_optimizer = fabric.setup(method, optimizer)
        scheduler = method.scheduler(optimizer, (end - begin) * batches)
        precision = fabric.strategy.precision
        if checkpoint is not None and epochs_done > begin:
            optimizer.load_state_dict(checkpoint.optimizer)
            scheduler.load_state_dict(checkpoint.scheduler)
            precision.load_state_dict(checkpoint.precision)
        else:
            losses_before.append(_watched_loss(method, watched, config.batch_size))
        for epoch in range(epochs_done, end):
            started_at = time.monotonic()
            module.train()
            # What a method draws at random follows from the epoch, too, and differs from one process to the next.
            torch.manual_seed(_epoch_seed(config, epoch) * fabric.world_size + fabric.global_rank)
            total = 0.0
            for number, chosen in enumerate(
                _batches(config, epoch, counts or (len(images),), batches, fabric)
            ):
                loss = module(*features.batch(chosen))
                wrapped_optimizer.zero_grad()
                fabric.backward(loss)
                wrapped_optimizer.step()
                learning_rate = float(scheduler.get_last_lr()[0])
                scheduler.step()
                value = float(loss.detach())
                _check_finite("the loss", value, epoch, config)
                total += value
                done = number + 1
                rate = done * config.batch_size * fabric.world_size / (time.monotonic() - started_at)
                progress(Progress(epoch, config.epochs, done / batches, total / done, rate))
            holdout_loss = _watched_loss(method, watched, config.batch_size)
            _check_finite("the held-out loss", holdout_loss, epoch, config)
            epochs_done = epoch + 1
            if epochs_done == end:
                method.eval()
                with torch.no_grad():
                    method.finish_stage(features.batches(config.batch_size))
            metrics.append(
                {
                    "epoch": epochs_done,
                    "stage": stage,
                    "loss": total / batches,
                    "holdout_loss": holdout_loss,
                    "learning_rate": learning_rate,
                    "seconds": time.monotonic() - started_at,
                }
            )
            if fabric.is_global_zero:
                keeper.keep(
                    Checkpoint(
                        epoch=epochs_done,
                        pictures=digest,
                        student=student_state(method),
                        optimizer=optimizer.state_dict(),
                        scheduler=scheduler.state_dict(),
                        precision=precision.state_dict(),
                        losses_before=losses_before,
                        metrics=metrics,
                    )
                )
    fabric.barrier()
    method.eval()
    return Fitted(losses_before, metrics)


def stage_ends(shares: tuple[float, ...], config: TrainConfig) -> list[int]:
    """Epochs that are done at the end of each stage: the shares of all epochs, rounded, and no stage without one.

    Raises TrainingError for fewer epochs than stages.
    """
    epochs, stages = config.epochs, len(shares)
    if epochs < stages:
        raise TrainingError(
            f"{config.method} is trained in {stages} stages, for which --epochs {epochs} has no room: give "
            f"--epochs {stages} or more"
        )
    ends: list[int] = []
    for stage in range(1, stages + 1):
        first, last = (ends[-1] + 1 if ends else 1), epochs - (stages - stage)
        ends.append(min(max(round(epochs * sum(shares[:stage]) / sum(shares)), first), last))
    return ends


def _batches(
    config: TrainConfig, epoch: int, counts: Sequence[int], batches: int, fabric: Fabric
) -> list[Tensor]:
    """Numbers of the pictures of every batch of one process in one epoch; a last, incomplete batch is left out."""
    generator = torch.Generator().manual_seed(_epoch_seed(config, epoch))
    order = epoch_order(counts, generator)[fabric.global_rank :: fabric.world_size]
    return list(torch.split(order, config.batch_size)[:batches])


def _epoch_seed(config: TrainConfig, epoch: int) -> int:
    return (config.seed << 20) + epoch


def check_training(method: DistillationMethod, config: TrainConfig, images: Tensor, processes: int) -> None:
    """Raise TrainingError where the epochs or the pictures, (N, H, W, 3), are too few to begin."""
    stage_ends(method.recipe.stages, config)
    _check_batch(config, images, processes)


def _check_batch(config: TrainConfig, images: Tensor, processes: int) -> None:
    """Raise TrainingError unless every batch gives batch normalisation two values a channel at stride 32."""
    smallest = min(config.batch_size, len(images) // processes)
    if smallest < 1:
        raise TrainingError(
            f"{len(images)} good pictures to train on for {processes} processes: give more pictures or fewer --devices"
        )
    if smallest * (images.shape[1] // 32) * (images.shape[2] // 32) < 2:
        raise TrainingError(
            f"a batch of 1 picture of {images.shape[1]}x{images.shape[2]} is too little for batch normalisation: give "
            "more pictures, a larger --batch-size or a larger --size"
        )


def _check_finite(name: str, value: float, epoch: int, config: TrainConfig) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} in epoch {epoch + 1}: give a smaller --learning-rate than {config.learning_rate}, or "
            "--training-precision 32-true"
        )


def _digest(textures: str, *pictures: Tensor) -> str:
    digest = hashlib.sha256(textures.encode())
    for images in pictures:
        digest.update(str(tuple(images.shape)).encode())
        digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def _watched_loss(method: DistillationMethod, watched: TeacherFeatures, batch_size: int) -> float:
    """Mean loss over all watched pictures, in evaluation mode."""
    was_training = method.training
    method.eval()
    total = 0.0
    for images, features in watched.batches(batch_size):
        total += float(method(images, features)) * len(images)
    method.train(was_training)
    return total / watched.count
