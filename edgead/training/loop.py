"""The training loop for every method and every kind of machine (Lightning Fabric).

The configuration alone determines the result. The order of the images in an epoch and the random numbers of a method
follow from the seed and the epoch's number, so a training that was killed and continued ends with the same weights.
The stages of a method follow each other, each with its own optimiser and schedule. The last weights are kept. The
held-out good images only give a loss to watch, which may end the training early, and no other image is used.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from edgead.data.stored_images import Images
from edgead.errors import RunError, TrainingError
from edgead.files.progress import TrainingState, log_state
from edgead.imaging.framing import Framing
from edgead.models.base import DistillationMethod
from edgead.training.checkpoint import (
    Checkpoint,
    CheckpointKeeper,
    images_digest,
    load_student,
    student_state,
)
from edgead.training.features import TeacherFeatures
from edgead.training.folds import Folds
from edgead.training.sampler import epoch_order, epoch_seed
from edgead.training.schedule import Schedule, check_training, stage_ends, stops_early
from edgead.types import Float64Array

_log = logging.getLogger(__name__)

# A checkpoint of a large student takes seconds to write. A kill loses at most this much work and the epoch under way.
CHECKPOINT_EVERY_S = 20.0

_LOGGED = ("loss", "holdout_loss", "learning_rate")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Losses and metrics of a training.

    Attributes:
        losses_before: Held-out loss before each stage.
        metrics: One row for each epoch: epoch, stage, loss, holdout_loss, learning_rate, seconds.
        scores: Scores of the images that set the threshold by students without their folds, (M,); None for a method
            with gradients.
    """

    losses_before: list[float]
    metrics: list[dict[str, float]]
    scores: Float64Array | None = None


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Good images of a training, on the host.

    Attributes:
        train: Images to train on, (N, H, W, 3) uint8 RGB, part after part.
        holdout: Held-out images to watch, (M, H, W, 3) uint8 RGB; with folds, the cross-fitted images.
        counts: Number of training images of each part; empty if there is one part.
        folds: Folds of all images, if some are cross-fitted.
        framings: Framings of the cross-fitted images; empty if all of them is inspected.
    """

    train: Images | Tensor
    holdout: Images | Tensor
    counts: tuple[int, ...] = ()
    folds: Folds | None = None
    framings: tuple[Framing, ...] = ()


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage under way: its epochs `begin` to `end`, and its module, optimiser and scheduler."""

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
        fabric: Devices and precision.
        method: The method. Its student is trained, its teacher never changes.
        schedule: Epochs, batch size, learning rate and seed.
        images: Images to train on, and images to watch.
        checkpoint_file: File of the checkpoint, written after an epoch.
        checkpoint_every_s: Minimum time between two checkpoints, in seconds.

    Raises:
        TrainingError: There are too few images or epochs.
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
        method.parts = len(self._counts)
        self._digest = images_digest(method.textures.fingerprint, images.train, images.holdout)
        self._batches = max(1, len(images.train) // (schedule.batch_size * fabric.world_size))
        method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._features = TeacherFeatures(method, images.train, fabric.device)
        self._watched = TeacherFeatures(method, images.holdout, fabric.device)
        self._epochs_done = 0
        self._losses_before: list[float] = []
        self._metrics: list[dict[str, float]] = []

    def fit(self, checkpoint: Checkpoint | None = None) -> Fitted:
        """Train all epochs, or the epochs after a checkpoint. The last one may come early.

        Args:
            checkpoint: State to continue from; None trains from the start.

        Returns:
            Losses and metrics of all epochs, including those before the checkpoint.

        Raises:
            TrainingError: A loss is not finite.
            RunError: The checkpoint belongs to other images or to a method with other tensors.
            KeyboardInterrupt: The user pressed Ctrl-C; the checkpoint then holds the last finished epoch.
        """
        if checkpoint is not None:
            self._restore(checkpoint)
        ends = stage_ends(self._method.hyperparameters.stages, self._schedule.epochs)
        with self._keeper:
            for number, (begin, end) in enumerate(pairwise((self._schedule.begun, *ends))):
                if not self._is_done(end):
                    self._train_stage(self._enter_stage(number, begin, end, checkpoint))
        if self._epochs_done < self._schedule.epochs:
            _log.info(
                "stopped after epoch %d, because the held-out loss did not get lower", self._epochs_done
            )
        self._fabric.barrier()
        self._method.eval()
        return Fitted(self._losses_before, self._metrics)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Load the student, losses and metrics of a checkpoint; RunError if it belongs to another training."""
        if checkpoint.images != self._digest:
            raise RunError(
                f"the pixels of the images differ from those that {self._file} was written for: the files changed, or "
                "this is another version of edgead",
                hint="choose another --out",
            )
        try:
            load_student(self._method, checkpoint.student)
        except RuntimeError as error:
            raise RunError(
                f"{self._file} does not fit the method of this version ({error})",
                hint="choose another --out",
            ) from error
        self._epochs_done = checkpoint.epoch
        self._losses_before, self._metrics = list(checkpoint.losses_before), list(checkpoint.metrics)

    def _enter_stage(self, number: int, begin: int, end: int, checkpoint: Checkpoint | None) -> _Stage:
        """Begin a stage, or continue the stage of a checkpoint."""
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
            method.eval()
            with torch.no_grad():
                method.begin_stage(self._features.batches(self._schedule.batch_size))
            if begin == 0 or number > 0:
                self._losses_before.append(self._watched_loss(self._epochs_done))
        return _Stage(number, begin, end, module, optimizer, wrapped_optimizer, scheduler)

    def _train_stage(self, stage: _Stage) -> None:
        while not self._is_done(stage.end):
            started_at, epoch = time.monotonic(), self._epochs_done
            loss, learning_rate = self._train_epoch(stage, epoch, started_at)
            row = {
                "epoch": epoch + 1,
                "stage": stage.number,
                "loss": loss,
                # Processes may differ by rounding, and must end at the same epoch.
                "holdout_loss": self._fabric.broadcast(self._watched_loss(epoch)),
                "learning_rate": learning_rate,
                "seconds": time.monotonic() - started_at,
            }
            self._epochs_done = epoch + 1
            self._metrics.append(row)
            log_losses(self._fabric, row)
            if self._is_done(stage.end):
                self._method.eval()
                with torch.no_grad():
                    self._method.finish_stage(self._features.batches(self._schedule.batch_size))
            if self._fabric.is_global_zero:
                self._keeper.keep(self._checkpoint(stage))

    def _is_done(self, end: int) -> bool:
        """Whether a stage that ends after `end` epochs at the latest is finished."""
        if self._epochs_done >= end:
            return True
        losses = [row["holdout_loss"] for row in self._metrics[self._schedule.begun :]]
        return stops_early(losses, self._schedule.early_stop)

    def _train_epoch(self, stage: _Stage, epoch: int, started_at: float) -> tuple[float, float]:
        """Train one epoch; return the mean loss of its batches and the learning rate of the last one."""
        fabric, schedule = self._fabric, self._schedule
        stage.module.train()
        # The random numbers of a method depend on the epoch, for continued trainings, and differ between processes.
        torch.manual_seed(epoch_seed(schedule.seed, epoch) * fabric.world_size + fabric.global_rank)
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
        """Image numbers of each batch of this process in one epoch; an incomplete last batch is dropped."""
        generator = torch.Generator().manual_seed(epoch_seed(self._schedule.seed, epoch))
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
                f"{name} is {value} in epoch {epoch + 1}",
                hint=f"give a smaller --learning-rate than {self._schedule.learning_rate}, or --training-precision "
                "32-true",
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


def log_losses(fabric: Fabric, row: Mapping[str, float]) -> None:
    """Give the losses and the learning rate of an epoch to Fabric's loggers.

    Args:
        fabric: Fabric with its loggers, none or more.
        row: Row of `Fitted.metrics`.
    """
    fabric.log_dict({name: row[name] for name in _LOGGED}, int(row["epoch"]))
