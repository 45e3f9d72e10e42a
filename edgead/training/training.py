"""Train a run from folders of good images, one for each part: the work of `edgead train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from edgead.bundle.manifest import check_recorded_images
from edgead.data import Dataset
from edgead.data.pseudo_anomalies.contact_sheet import IMAGES_PER_SHEET, draw_contact_sheet
from edgead.data.pseudo_anomalies.textures import FolderTextures, ProceduralTextures, Textures
from edgead.errors import InputError, RunError
from edgead.files.atomic import check_directory
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, method_class
from edgead.models.base import Alignment, DistillationMethod, Preset
from edgead.models.closed_form import ClosedFormMethod
from edgead.training.alignment import ALIGNED_BELOW, alignment_from_spread, alignment_spread
from edgead.training.checkpoint import Checkpoint, read_checkpoint
from edgead.training.closed_form import fit_closed_form
from edgead.training.config import PROCEDURAL, TrainConfig
from edgead.training.finish import finish_run, finished_run
from edgead.training.images import (
    PartImages,
    is_cross_fitted,
    joined_folds,
    log_budget,
    read_images,
    stacked,
)
from edgead.training.loop import Trainer, TrainingImages
from edgead.training.memory import memory_errors
from edgead.training.records import PartRecord, RunRecord
from edgead.training.run import (
    CHECKPOINT_FILE,
    CONTACT_SHEET,
    Run,
    read_record,
    write_record,
)
from edgead.training.schedule import check_training, stage_ends

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
    record = _record_of(config, out)
    if record is not None and record.state == "finished":
        _log.info("%s is finished already (%d epochs): nothing to do", out, config.epochs)
        return Run(out, record)

    # Invalid options must fail before the teacher is fetched and the images are read, which takes minutes.
    kind, preset = method_class(config.method), cast("Preset", config.preset)
    kind.check_choices(config.loss, config.variant)
    stage_ends(kind.presets[preset].stages, config.epochs)
    datasets = config.open_datasets()
    counts = _hold_outs(datasets, config)
    # Random weights of a teacher must be the same when the training is continued.
    torch.manual_seed(config.seed)
    teacher = kind.create_teacher(config.teacher, config.teacher_weights)
    parts = _parts(datasets, counts, config)
    method, alignment = _method(config, teacher, textures, parts, record)
    fresh, images = _fresh_record(config, parts, alignment), _images(parts)
    # Before the record is written, because a corrected command would be refused as another configuration.
    check_training(method, config.schedule, images.train, fabric.world_size)
    checkpoint = None
    if record is not None:
        checkpoint = _checkpoint_of(record, fresh, out)
    elif fabric.is_global_zero:
        write_record(out, fresh)
    if fabric.is_global_zero and not (out / CONTACT_SHEET).exists():
        _draw_disturbed(method, parts.values(), config.seed, out)

    with memory_errors(config.batch_size, config.size):
        if isinstance(method, ClosedFormMethod):
            fitted = fit_closed_form(method, images, config.batch_size, config.seed, fabric.device)
        else:
            trainer = Trainer(fabric, method, config.schedule, images, out / CHECKPOINT_FILE)
            fitted = trainer.fit(checkpoint)
        if fabric.is_global_zero:
            finish_run(fresh, out, method, fitted, parts, time.monotonic() - started_at)
    fabric.barrier()
    return finished_run(out)


def _hold_outs(datasets: Mapping[str, Dataset], config: TrainConfig) -> dict[str, tuple[int, bool]]:
    """Compute how many images of every part set its threshold, and whether they are cross-fitted; log it."""
    closed_form = method_class(config.method).closed_form
    found = {}
    for name, dataset in datasets.items():
        crossed = is_cross_fitted(dataset, config.hold_out, closed_form)
        found[name] = log_budget(dataset, config.hold_out, config.false_alarm_rate, crossed), crossed
    check_recorded_images(sum(count for count, _ in found.values()))
    return found


def _parts(
    datasets: Mapping[str, Dataset], counts: Mapping[str, tuple[int, bool]], config: TrainConfig
) -> dict[str, PartImages]:
    """Read the good images of every part, by the part's name; `counts` is the result of `_hold_outs`."""
    size = ModelSize.parse(config.size)
    return {
        name: read_images(dataset, size, config.seed, config.skip_broken, *counts[name])
        for name, dataset in datasets.items()
    }


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
    elif method_class(config.method).closed_form:
        # It has no use for the alignment, and measuring it takes as long as a part of the training.
        alignment = "unaligned"
    else:
        alignment = _found_alignment(teacher, parts)
    torch.manual_seed(config.seed)
    preset, size = cast("Preset", config.preset), ModelSize.parse(config.size)
    method = create_method(
        config.method, teacher, size, config.loss, alignment, preset, textures, config.variant
    )
    return method, alignment


def _fresh_record(config: TrainConfig, parts: Mapping[str, PartImages], alignment: Alignment) -> RunRecord:
    """Create the record of a training that begins."""
    records = {
        name: PartRecord(len(part.trained.samples), part.names_held_out(config.parts[name]))
        for name, part in parts.items()
    }
    return RunRecord(
        config=config, state="training", parts=records, alignment=alignment, scale_weights=(), summary={}
    )


def _images(parts: Mapping[str, PartImages]) -> TrainingImages:
    """Join the images of all parts, part after part."""
    return TrainingImages(
        stacked(part.trained.images for part in parts.values()),
        stacked(part.held_out.images for part in parts.values()),
        tuple(len(part.trained.images) for part in parts.values()),
        joined_folds(parts.values()),
    )


def _checkpoint_of(record: RunRecord, fresh: RunRecord, out: Path) -> Checkpoint | None:
    """Read the checkpoint of an unfinished run; None if it stopped before its first checkpoint."""
    if record.parts != fresh.parts:
        raise RunError(
            f"the images in {_text(fresh.config.data)} changed since the training in {out} began",
            hint="choose another --out",
        )
    checkpoint = read_checkpoint(out / CHECKPOINT_FILE)
    begun = checkpoint.epoch if checkpoint else 0
    _log.info("continuing %s after epoch %d of %d", out, begun, fresh.config.epochs)
    return checkpoint


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


def _draw_disturbed(method: DistillationMethod, parts: Collection[PartImages], seed: int, out: Path) -> None:
    """Draw examples of the pseudo-anomalies, so that the user can check them before hours of training."""
    share = max(1, IMAGES_PER_SHEET // len(parts))
    shown = np.concatenate([part.held_out.images[:share] for part in parts])[:IMAGES_PER_SHEET]
    found = method.disturbed(shown, np.random.default_rng(seed))
    if found is not None:
        draw_contact_sheet(shown, *found, out / CONTACT_SHEET)
        _log.info("the training also uses pseudo-anomalies; examples are in %s", out / CONTACT_SHEET)


def _record_of(config: TrainConfig, out: Path) -> RunRecord | None:
    """Read the record of the run in `out`, which must have the same configuration; None if there is no run."""
    check_directory(out)
    record = read_record(out)
    if record is None:
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"--out {out} holds files that are not a run", hint="choose another directory")
        return None
    for field in fields(TrainConfig):
        begun, asked = getattr(record.config, field.name), getattr(config, field.name)
        if begun != asked:
            name = field.name.replace("_", " ")
            raise RunError(
                f"{out} holds a run with {name} {_text(begun)}, not {_text(asked)}",
                hint=f"choose another --out, or remove {out}",
            )
    if record.state == "collapsed":
        raise RunError(
            f"the run in {out} collapsed ({record.summary.get('collapse')})", hint="choose another --out"
        )
    return record


def _found_alignment(teacher: nn.Module, parts: Mapping[str, PartImages]) -> Alignment:
    """Determine the alignment of the parts from the good images.

    One student serves all parts, so it must be able to rebuild any position if one of the parts is unaligned.
    """
    spreads = {
        name: alignment_spread(
            teacher, torch.from_numpy(part.trained.images), torch.from_numpy(part.held_out.images)
        )
        for name, part in parts.items()
    }
    # The least aligned part decides for all.
    alignment = alignment_from_spread(max(spreads.values()))
    found = ", ".join(
        f"{name} {spread:.2f}" if len(parts) > 1 else f"{spread:.2f}" for name, spread in spreads.items()
    )
    _log.info(
        "the parts are %s (spread %s, aligned below %s); --alignment overrides this",
        alignment,
        found,
        ALIGNED_BELOW,
    )
    return alignment


def _text(setting: Any) -> str:
    """Write a setting as the user typed it, a list of folders with spaces between."""
    return " ".join(setting) if isinstance(setting, tuple) else str(setting)
