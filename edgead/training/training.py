"""Train a run from folders of good images, one for each part: the work of `edgead train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from edgead.bundle.manifest import check_recorded_images
from edgead.data import Dataset
from edgead.data.pseudo_anomalies.textures import FolderTextures, ProceduralTextures, Textures
from edgead.data.stored_images import joined
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE
from edgead.models import METHODS, check_fusion, create_method, method_class
from edgead.models.base import Alignment, DistillationMethod, Preset
from edgead.models.closed_form import ClosedFormMethod
from edgead.training.alignment import found_alignment
from edgead.training.changes import log_changes, recorded_files
from edgead.training.checkpoint import Checkpoint
from edgead.training.closed_form import fit_closed_form
from edgead.training.config import PROCEDURAL, TrainConfig
from edgead.training.disturbed import draw_disturbed
from edgead.training.finish import finish_run, finished_run
from edgead.training.images import (
    PartImages,
    is_cross_fitted,
    joined_folds,
    log_budget,
    read_images,
    watched_rows,
)
from edgead.training.loop import Fitted, Trainer, TrainingImages, log_losses
from edgead.training.memory import memory_errors
from edgead.training.records import PartRecord, RunRecord
from edgead.training.resume import check_extension, continued, is_extension, record_of, schedule_of
from edgead.training.run import (
    CHECKPOINT_FILE,
    Run,
    open_run,
    write_record,
)
from edgead.training.schedule import Schedule, check_one_stage, check_training, stage_ends
from edgead.training.turned_parts import turn_hint
from edgead.training.update import Division, check_image_size, divide

_log = logging.getLogger(__name__)


def train_run(config: TrainConfig, out: Path, fabric: Fabric) -> Run:
    """Train a run, or continue a training that was killed. A finished run is returned as it is.

    Args:
        config: Configuration of the training.
        out: Run directory.
        fabric: Devices and precision.

    Returns:
        The finished run.

    Raises:
        DataError: A dataset cannot be used.
        TeacherError: The teacher is unknown, or its weights are not available.
        InputError: `out`, the method, the loss, the variant or the textures cannot be used.
        RunError: `out` holds another run.
        TrainingError: There are too few epochs or images, the GPU has too little memory, or a loss is not finite.
        CollapseError: The student learnt nothing, or the score sees no defects; the record of the run states it too.
    """
    started_at = time.monotonic()
    textures = _textures(config.textures, config.method)
    record = record_of(config, out)
    if record is not None and record.state == "finished" and not is_extension(record, config):
        return _unchanged(Run(out, record))

    # Invalid options must fail before the teacher is fetched and the images are read, which takes minutes.
    _check_options(config)
    if record is not None and record.state == "finished":
        check_extension(config)
    base = open_run(Path(config.base)) if config.base else None
    datasets = config.open_datasets()
    plans = _plans(datasets, config, base)
    # Random weights of a teacher must be the same when the training is continued. A run holds those of its teacher.
    torch.manual_seed(config.seed)
    weights = "random" if base else config.teacher_weights
    teacher = method_class(config.method).create_teacher(config.teacher, weights)
    parts = _parts(datasets, plans, config, base)
    method, alignment = _method(config, teacher, textures, parts, record or (base.record if base else None))
    if base:
        method.load_state_dict(base.load_model().state_dict())
    fresh, images = _fresh_record(config, parts, datasets, alignment), _images(parts)
    # Before the record is written, because a corrected command would be refused as another configuration.
    check_training(method, config.schedule, images.train, fabric.world_size)
    checkpoint = None
    if record is not None:
        fresh, checkpoint = continued(record, fresh, images, textures.fingerprint, out, fabric)
    elif fabric.is_global_zero:
        write_record(out, fresh)
    if fabric.is_global_zero:
        draw_disturbed(method, parts.values(), config.seed, out)
    with memory_errors(config.batch_size, config.size):
        fitted = _fit(method, schedule_of(fresh), images, fabric, out / CHECKPOINT_FILE, checkpoint)
        if base and not method.closed_form:
            # Compared with a student that has learnt nothing, not with the one of the base.
            fitted = replace(fitted, losses_before=[float(base.summary["holdout_loss_before"])])
        if fabric.is_global_zero:
            finish_run(fresh, out, method, fitted, parts, time.monotonic() - started_at)
    fabric.barrier()
    return finished_run(out)


def _unchanged(run: Run) -> Run:
    """Return a finished run as it is, and warn if its images changed."""
    _log.info("%s is finished already (%d epochs): nothing to do", run.path, run.summary["epochs"])
    log_changes(run.record, run.path)
    return run


def _check_options(config: TrainConfig) -> None:
    """Check the options that depend on the method."""
    kind, preset = method_class(config.method), cast("Preset", config.preset)
    kind.check_choices(config.loss, config.variant)
    check_fusion(config.method, config.fusion)
    stage_ends(kind.presets[preset].stages, config.epochs)
    if config.early_stop is not None:
        what = f"--early-stop {config.early_stop}"
        check_one_stage(config.method, config.preset, what, "leave out --early-stop")


def _fit(
    method: DistillationMethod,
    schedule: Schedule,
    images: TrainingImages,
    fabric: Fabric,
    file: Path,
    checkpoint: Checkpoint | None,
) -> Fitted:
    """Compute or train the student in place, and log its losses; `file` is the checkpoint's."""
    try:
        if not isinstance(method, ClosedFormMethod):
            return Trainer(fabric, method, schedule, images, file).fit(checkpoint)
        fitted = fit_closed_form(method, images, schedule.batch_size, schedule.seed, fabric.device)
        log_losses(fabric, fitted.metrics[0])
        return fitted
    finally:
        for logger in fabric.loggers:
            logger.finalize("success")


class _Plan(NamedTuple):
    """Which images of a part set its threshold: how many, whether they are cross-fitted, and in an update which."""

    images: int
    crossed: bool
    division: Division | None


def _plans(datasets: Mapping[str, Dataset], config: TrainConfig, base: Run | None) -> dict[str, _Plan]:
    """Plan which images of every part set its threshold, and log what they support."""
    closed_form = method_class(config.method).closed_form
    plans = {}
    for name, dataset in datasets.items():
        crossed = is_cross_fitted(dataset, config.hold_out, closed_form)
        division = None if base is None else divide(dataset, base.record.parts[name], config.seed, crossed)
        count = log_budget(dataset, config.hold_out, config.false_alarm_rate, crossed, division)
        plans[name] = _Plan(count, crossed, division)
    check_recorded_images(sum(plan.images for plan in plans.values()))
    return plans


def _parts(
    datasets: Mapping[str, Dataset],
    plans: Mapping[str, _Plan],
    config: TrainConfig,
    base: Run | None,
) -> dict[str, PartImages]:
    """Read the good images of every part, by the part's name."""
    size, parts = ModelSize.parse(config.size), {}
    for name, dataset in datasets.items():
        old = None if base is None else base.record.parts[name]
        part = read_images(dataset, size, config.seed, config.skip_broken, *plans[name])
        if old is not None:
            check_image_size(name, old, part.image_px)
        elif config.view == WHOLE and (hint := turn_hint(part.trained.images, size)) is not None:
            _log.info("%s: %s", name, hint)
        parts[name] = part
    return parts


def _method(
    config: TrainConfig,
    teacher: nn.Module,
    textures: Textures,
    parts: Mapping[str, PartImages],
    record: RunRecord | None,
) -> tuple[DistillationMethod, Alignment]:
    """Create the untrained method of a configuration; a continued training creates the same."""
    if record is not None:
        alignment = record.alignment
    elif config.alignment != "auto":
        alignment = cast("Alignment", config.alignment)
    elif config.view.fit == "turn":
        # Turned parts still roll about their axis, which the small code of aligned parts cannot represent.
        alignment = "unaligned"
    elif method_class(config.method).closed_form:
        # It has no use for the alignment, and measuring it takes as long as a part of the training.
        alignment = "unaligned"
    else:
        alignment = found_alignment(teacher, parts)
    torch.manual_seed(config.seed)
    preset, size = cast("Preset", config.preset), ModelSize.parse(config.size)
    method = create_method(
        config.method, teacher, size, config.loss, alignment, preset, textures, config.variant
    )
    method.head = replace(method.head, fusion=config.fusion)
    return method, alignment


def _fresh_record(
    config: TrainConfig,
    parts: Mapping[str, PartImages],
    datasets: Mapping[str, Dataset],
    alignment: Alignment,
) -> RunRecord:
    """Create the record of a training that begins."""
    records = {
        name: PartRecord(
            len(part.trained.samples),
            part.names_held_out(config.parts[name]),
            files=recorded_files(datasets[name], config.parts[name]),
            image_px=part.image_px,
        )
        for name, part in parts.items()
    }
    return RunRecord(
        config=config, state="training", parts=records, alignment=alignment, scale_weights=(), summary={}
    )


def _images(parts: Mapping[str, PartImages]) -> TrainingImages:
    """Join the images of all parts, part after part."""
    return TrainingImages(
        joined([part.trained.images for part in parts.values()]),
        joined([watched_rows(part) for part in parts.values()]),
        tuple(len(part.trained.images) for part in parts.values()),
        joined_folds(parts.values()),
        sum((part.held_out.framings for part in parts.values()), ()),
    )


def _textures(source: str, method_name: str) -> Textures:
    """Open the textures of pseudo-anomalies; a folder without usable images is refused here."""
    if source == PROCEDURAL:
        return ProceduralTextures()
    if not method_class(method_name).uses_textures:
        using = [name for name, method in METHODS.items() if method.uses_textures]
        raise InputError(
            f"--textures {source}, but {method_name} does not train on pseudo-anomalies",
            hint=f"leave out --textures, or give --method {' or '.join(using)}",
        )
    return FolderTextures(Path(source))
