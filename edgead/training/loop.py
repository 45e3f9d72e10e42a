"""The one training loop, for every method and every kind of machine (Lightning Fabric).

What the result depends on is decided by the configuration alone: the order of the images in an epoch, and what a
method draws at random, follow from the seed and the epoch's number, so a training that was killed and continued ends in
the same weights. A method's stages come one after the other, each with an optimiser and a schedule of its own. The
number of epochs is fixed in advance and the last weights are kept; the held-out good images are only watched, and no
other image is looked at.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from edgead.errors import RunError, TrainingError
from edgead.files.progress import TrainingState, log_state
from edgead.models.base import DistillationMethod
from edgead.training.checkpoint import Checkpoint, CheckpointKeeper, load_student, student_state
from edgead.training.features import TeacherFeatures
from edgead.training.sampler import epoch_order
from edgead.training.schedule import Schedule, check_training, stage_ends

_log = logging.getLogger(__name__)

# A checkpoint of a large student takes seconds to write; a kill costs at most this much work and the epoch under way.
CHECKPOINT_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """losses_before: held-out, of each stage. metrics: epoch, stage, loss, holdout_loss, learning_rate, seconds."""

    losses_before: list[float]
    metrics: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Good images of a training, on the host.

    Attributes:
        train: (N, H, W, 3) uint8 RGB to train on.
        holdout: (M, H, W, 3) uint8 RGB to watch.
        counts: How many of `train` each part has, part after part; empty where all are of one part.
    """

    train: Tensor
    holdout: Tensor
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage under way: epochs `begin` to `end`, and what trains in them."""

    number: int
    begin: int
    end: int
    module: Any
    optimizer: Optimizer
    wrapped_optimizer: Any
    scheduler: LRScheduler


class Trainer:
    """Trains the student of a method in place; logs its state after every batch.

    Args:
        fabric: The machine, and the precision.
        method: The method; its student is trained, its teacher never changes.
        schedule: Epochs, batch size, learning rate and seed.
        images: Images to train on, and images to watch.
        checkpoint_file: File of the state, written after an epoch.
        checkpoint_every_s: Shortest time between two checkpoints, in seconds.

    Raises:
        TrainingError: If there are too few images or epochs.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: DistillationMethod,
        schedule: Schedule,
        images: TrainingImages,
        checkpoint_file: Path,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    ) -> None:
        check_training(method, schedule, images.train, fabric.world_size)
        self._fabric, self._method, self._schedule = fabric, method, schedule
        self._file = checkpoint_file
        self._keeper = CheckpointKeeper(checkpoint_file, checkpoint_every_s)
        self._counts = images.counts or (len(images.train),)
        self._digest = _digest(method.textures.fingerprint, images.train, images.holdout)
        self._batches = max(1, len(images.train) // (schedule.batch_size * fabric.world_size))
        method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._features = TeacherFeatures(method, images.train, fabric.device)
        self._watched = TeacherFeatures(method, images.holdout, fabric.device)
        self._epochs_done = 0
        self._losses_before: list[float] = []
        self._metrics: list[dict[str, float]] = []

    def fit(self, checkpoint: Checkpoint | None = None) -> Fitted:
        """Train all epochs, or those that a checkpoint leaves.

        Args:
            checkpoint: State to continue from.

        Returns:
            Losses and metrics of all epochs, those before the checkpoint too.

        Raises:
            TrainingError: If a loss is not finite.
            RunError: If the checkpoint is of other images, or of a method built in another way.
            KeyboardInterrupt: On Ctrl-C; the checkpoint then holds the last finished epoch.
        """
        if checkpoint is not None:
            self._restore(checkpoint)
        ends = stage_ends(self._method.hyperparameters.stages, self._schedule.epochs)
        with self._keeper:
            for number, (begin, end) in enumerate(pairwise((0, *ends))):
                if self._epochs_done < end:
                    self._train_stage(self._enter_stage(number, begin, end, checkpoint))
        self._fabric.barrier()
        self._method.eval()
        return Fitted(self._losses_before, self._metrics)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Continue from the student and the figures of a checkpoint; RunError for one of another training."""
        if checkpoint.images != self._digest:
            raise RunError(
                f"the training images changed since {self._file} was written: choose another --out, or remove that "
                "file to train from the start"
            )
        try:
            load_student(self._method, checkpoint.student)
        except RuntimeError as error:
            raise RunError(
                f"{self._file} is of a method that was built in another way ({error}): remove it to train from the "
                "start"
            ) from error
        self._epochs_done = checkpoint.epoch
        self._losses_before, self._metrics = list(checkpoint.losses_before), list(checkpoint.metrics)

    def _enter_stage(self, number: int, begin: int, end: int, checkpoint: Checkpoint | None) -> _Stage:
        """Begin a stage, or continue the one that a checkpoint is of."""
        method, fabric = self._method, self._fabric
        method.enter_stage(number)
        optimizer = method.optimizer(self._schedule.learning_rate)
        module, wrapped_optimizer = fabric.setup(method, optimizer)
        scheduler = method.scheduler(optimizer, (end - begin) * self._batches)
        if checkpoint is not None and self._epochs_done > begin:
            optimizer.load_state_dict(checkpoint.optimizer)
            scheduler.load_state_dict(checkpoint.scheduler)
            fabric.strategy.precision.load_state_dict(checkpoint.precision)
        else:
            self._losses_before.append(self._watched_loss(self._epochs_done))
        return _Stage(number, begin, end, module, optimizer, wrapped_optimizer, scheduler)

    def _train_stage(self, stage: _Stage) -> None:
        for epoch in range(self._epochs_done, stage.end):
            started_at = time.monotonic()
            loss, learning_rate = self._train_epoch(stage, epoch, started_at)
            holdout_loss = self._watched_loss(epoch)
            self._epochs_done = epoch + 1
            if self._epochs_done == stage.end:
                self._method.eval()
                with torch.no_grad():
                    self._method.finish_stage(self._features.batches(self._schedule.batch_size))
            self._metrics.append(
                {
                    "epoch": self._epochs_done,
                    "stage": stage.number,
                    "loss": loss,
                    "holdout_loss": holdout_loss,
                    "learning_rate": learning_rate,
                    "seconds": time.monotonic() - started_at,
                }
            )
            if self._fabric.is_global_zero:
                self._keeper.keep(self._checkpoint(stage))

    def _train_epoch(self, stage: _Stage, epoch: int, started_at: float) -> tuple[float, float]:
        """Train one epoch; mean loss of its batches, and learning rate of the last one."""
        fabric, schedule = self._fabric, self._schedule
        stage.module.train()
        # What a method draws at random follows from the epoch, too, and differs from one process to the next.
        torch.manual_seed(_epoch_seed(schedule.seed, epoch) * fabric.world_size + fabric.global_rank)
        total, learning_rate = 0.0, math.nan
        for done, chosen in enumerate(self._order(epoch), start=1):
            loss = stage.module(*self._features.batch(chosen))
            stage.wrapped_optimizer.zero_grad()
            fabric.backward(loss)
            stage.wrapped_optimizer.step()
            learning_rate = float(stage.scheduler.get_last_lr()[0])
            stage.scheduler.step()
            total += self._finite("the loss", float(loss.detach()), epoch)
            rate = done * schedule.batch_size * fabric.world_size / (time.monotonic() - started_at)
            log_state(_log, TrainingState(epoch, schedule.epochs, done / self._batches, total / done, rate))
        return total / self._batches, learning_rate

    def _order(self, epoch: int) -> list[Tensor]:
        """Numbers of the images of every batch of one process in one epoch; a last, incomplete batch is left out."""
        generator = torch.Generator().manual_seed(_epoch_seed(self._schedule.seed, epoch))
        order = epoch_order(self._counts, generator)[self._fabric.global_rank :: self._fabric.world_size]
        return list(torch.split(order, self._schedule.batch_size)[: self._batches])

    @torch.no_grad()
    def _watched_loss(self, epoch: int) -> float:
        """Mean loss over all watched images, in evaluation mode."""
        was_training = self._method.training
        self._method.eval()
        total = 0.0
        for images, features in self._watched.batches(self._schedule.batch_size):
            total += float(self._method(images, features)) * len(images)
        self._method.train(was_training)
        return self._finite("the held-out loss", total / self._watched.count, epoch)

    def _finite(self, name: str, value: float, epoch: int) -> float:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} in epoch {epoch + 1}: give a smaller --learning-rate than "
                f"{self._schedule.learning_rate}, or --training-precision 32-true"
            )
        return value

    def _checkpoint(self, stage: _Stage) -> Checkpoint:
        return Checkpoint(
            epoch=self._epochs_done,
            images=self._digest,
            student=student_state(self._method),
            optimizer=stage.optimizer.state_dict(),
            scheduler=stage.scheduler.state_dict(),
            precision=self._fabric.strategy.precision.state_dict(),
            losses_before=self._losses_before,
            metrics=self._metrics,
        )


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed << 20) + epoch


def _digest(textures: str, *arrays: Tensor) -> str:
    digest = hashlib.sha256(textures.encode())
    for images in arrays:
        digest.update(str(tuple(images.shape)).encode())
        digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()
