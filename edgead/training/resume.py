"""What a run directory holds when a training starts: nothing, an unfinished training, or a finished one.

The same command continues an unfinished training and leaves a finished one as it is. With more epochs it extends a
finished one: the checkpoint gets the finished weights, then the record becomes unfinished. From there on the extension
is a training that is continued, so a kill at any moment leaves a run that the same command finishes.

The learning rate of a finished one-cycle schedule is almost 0, and the state of its optimiser is gone. So an extension
begins a new cycle over its own epochs, at a lower rate, because a high one would first undo what was learnt.
"""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from edgead.errors import RunError
from edgead.files.atomic import check_directory, check_empty
from edgead.files.parsing import parse_json, read_bounded
from edgead.files.records import record_errors
from edgead.models import hyperparameters_of
from edgead.training.changes import changes_text
from edgead.training.checkpoint import (
    Checkpoint,
    images_digest,
    read_checkpoint,
    student_state,
    write_checkpoint,
)
from edgead.training.config import TrainConfig
from edgead.training.loop import TrainingImages
from edgead.training.records import RunRecord
from edgead.training.run import CHECKPOINT_FILE, MAX_JSON_BYTES, METRICS_FILE, Run, read_record, write_record
from edgead.training.schedule import RATE_SHARE, Schedule, check_one_stage

_log = logging.getLogger(__name__)


def record_of(config: TrainConfig, out: Path) -> RunRecord | None:
    """Read the record of the run in a directory.

    Args:
        config: Configuration of the training that starts. A finished run may have fewer epochs.
        out: Run directory.

    Returns:
        The record; None if there is no run.

    Raises:
        InputError: The directory holds other files.
        RunError: The run has another configuration, or collapsed.
    """
    check_directory(out)
    record = read_record(out)
    if record is None:
        check_empty(out, "run")
        return None
    if record.state == "collapsed":
        raise RunError(
            f"the run in {out} collapsed ({record.summary.get('collapse')})", hint="choose another --out"
        )
    for field in fields(TrainConfig):
        begun, asked = getattr(record.config, field.name), getattr(config, field.name)
        if begun == asked or (field.name == "epochs" and is_extension(record, config)):
            continue
        name, hint = field.name.replace("_", " "), f"choose another --out, or remove {out}"
        if field.name == "epochs":
            more = " to leave it, or more to extend it" if record.state == "finished" else " to continue it"
            hint = f"give --epochs {begun}{more}, or choose another --out"
        raise RunError(f"{out} holds a run with {name} {_text(begun)}, not {_text(asked)}", hint=hint)
    return record


def is_extension(record: RunRecord, config: TrainConfig) -> bool:
    """Return whether a training extends a finished one.

    Args:
        record: Record of the run.
        config: Configuration of the training that starts.
    """
    return record.state == "finished" and config.epochs > record.config.epochs


def schedule_of(record: RunRecord) -> Schedule:
    """Return the schedule of a training, or of its extension.

    Args:
        record: Record of the training.
    """
    config, schedule = record.config, record.config.schedule
    if not record.begun:
        return schedule
    is_cycle = hyperparameters_of(config.method, config.preset).schedule == "one-cycle"
    rate = config.learning_rate / RATE_SHARE if is_cycle else config.learning_rate
    return replace(schedule, begun=record.begun, learning_rate=rate)


def check_extension(config: TrainConfig) -> None:
    """Check that a method can be trained further; InputError otherwise."""
    what = f"--epochs {config.epochs} for a finished run"
    check_one_stage(config.method, config.preset, what, "choose another --out, and train anew")


def continued(
    record: RunRecord, fresh: RunRecord, images: TrainingImages, textures: str, out: Path, fabric: Fabric
) -> tuple[RunRecord, Checkpoint | None]:
    """Continue an unfinished run, or begin the extension of a finished one.

    Args:
        record: Record of the run.
        fresh: Record of a training that would begin now.
        images: Images of the training.
        textures: Fingerprint of the textures.
        out: Run directory.
        fabric: Processes of the training. The first one writes.

    Returns:
        The record of the training, and its checkpoint; None if it stopped before its first checkpoint.

    Raises:
        RunError: The images changed, or the run has no weights or a broken checkpoint.
    """
    begun = {name: replace(part, threshold=None, ratios=()) for name, part in record.parts.items()}
    if begun != fresh.parts:
        changes = changes_text(record, fresh)
        raise RunError(
            f"the images in {_text(fresh.config.data)} changed since the training in {out} began"
            f"{changes and f': {changes}'}",
            hint="choose another --out",
        )
    if is_extension(record, fresh.config):
        fresh = _begin_extension(record, fresh, images, textures, out, fabric)
    else:
        fresh = replace(fresh, begun=record.begun)
    file = out / CHECKPOINT_FILE
    checkpoint = read_checkpoint(file)
    if checkpoint is None and fresh.begun:
        raise RunError(f"{file} is missing, which extends the run", hint=f"remove {out} and train anew")
    epoch = checkpoint.epoch if checkpoint else 0
    _log.info("continuing %s after epoch %d of %d", out, epoch, fresh.config.epochs)
    return fresh, checkpoint


def _begin_extension(
    record: RunRecord, fresh: RunRecord, images: TrainingImages, textures: str, out: Path, fabric: Fabric
) -> RunRecord:
    """Make a finished run an unfinished one with more epochs. See `continued`."""
    extension = replace(fresh, begun=int(record.summary["epochs"]))
    # Every process reads the run, so that all of them end with the error of a broken one, and none waits for another.
    checkpoint = Checkpoint(
        epoch=extension.begun,
        images=images_digest(textures, images.train, images.holdout),
        student=student_state(Run(out, record).load_model()),
        optimizer={},
        scheduler={},
        precision={},
        losses_before=[float(record.summary["holdout_loss_before"])],
        metrics=_metrics(out / METRICS_FILE),
    )
    # Nothing is written before all have read.
    fabric.barrier()
    if fabric.is_global_zero:
        write_checkpoint(out / CHECKPOINT_FILE, checkpoint)
        write_record(out, extension)
    fabric.barrier()
    return extension


def _metrics(file: Path) -> Any:
    """Read the figures of the epochs of a finished run."""
    with record_errors(RunError, f"{file} is no list of figures", "train again, into a new folder"):
        return parse_json(read_bounded(file, MAX_JSON_BYTES), MAX_JSON_BYTES)


def _text(setting: Any) -> str:
    """Write a setting as the user typed it, a list of folders with spaces between."""
    return " ".join(setting) if isinstance(setting, tuple) else str(setting)
