"""From folders of good pictures, one for each part, to a finished run: what `edgead train` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from edgead.data import Dataset, open_dataset
from edgead.data.pseudo_anomalies.contact_sheet import PICTURES_PER_SHEET, draw_contact_sheet
from edgead.data.pseudo_anomalies.textures import FolderTextures, ProceduralTextures, Textures
from edgead.errors import CollapseError, InputError, RunError
from edgead.files.atomic import check_directory, replace_file
from edgead.files.parsing import write_json
from edgead.imaging.preprocess import ModelSize
from edgead.models import METHODS, create_method, method_class
from edgead.models.base import Alignment, DistillationMethod, Preset
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.alignment import ALIGNED_BELOW, alignment_from_spread, alignment_spread
from edgead.training.checkpoint import Checkpoint, read_checkpoint
from edgead.training.config import PROCEDURAL, TrainConfig
from edgead.training.images import PartPictures, read_pictures, stacked
from edgead.training.loop import Fitted, Progress, Trainer, TrainingImages
from edgead.training.loss_plot import draw_loss_curve
from edgead.training.memory import memory_errors
from edgead.training.run import (
    CHECKPOINT_FILE,
    CONTACT_SHEET,
    LOSS_PICTURE,
    METRICS_FILE,
    WEIGHTS_FILE,
    PartRecord,
    Run,
    RunRecord,
    read_record,
    write_record,
)
from edgead.training.sanity import Sanity, raised_share
from edgead.training.schedule import check_training, stage_ends
from edgead.training.session import TorchSession


def train_run(
    config: TrainConfig,
    out: Path,
    fabric: Fabric,
    say: Callable[[str], None],
    progress: Callable[[Progress], None],
) -> Run:
    """Train a run, continue one that was killed, or find it finished.

    Args:
        config: What to train.
        out: Run directory.
        fabric: The machine, and the precision.
        say: Takes a line for the user.
        progress: Called after every batch.

    Returns:
        The finished run.

    Raises:
        DataError: If a dataset cannot be used.
        TeacherError: If the teacher cannot be had.
        InputError: If `out` or the textures cannot be used.
        RunError: If `out` holds another run.
        TrainingError: If the GPU has too little memory, or a loss is not finite.
        CollapseError: If the student learnt nothing; the run then says so too.
    """
    started_at = time.monotonic()
    textures = _textures(config.textures, config.method)
    record = _record_of(config, out)
    if record is not None and record.state == "finished":
        say(f"{out} is finished already ({config.epochs} epochs): nothing to do")
        return Run(out, record)

    # What can be refused is refused before a teacher is fetched and before images are read.
    kind, preset = method_class(config.method), cast("Preset", config.preset)
    kind.check_choices(config.loss, config.variant)
    stage_ends(kind.recipes[preset].stages, config.epochs)
    datasets = {name: open_dataset(root, config.layout) for name, root in config.parts.items()}
    # Random weights of a teacher, too, are the same when the training is continued.
    torch.manual_seed(config.seed)
    teacher = kind.create_teacher(config.teacher, config.teacher_weights)
    parts = _parts(datasets, config, say)
    method, alignment = _method(config, teacher, textures, parts, record, say)
    fresh = RunRecord(
        config=config,
        state="training",
        parts={
            name: PartRecord(len(part.trained.samples), part.names_held_out(config.parts[name]))
            for name, part in parts.items()
        },
        alignment=alignment,
        summary={},
    )
    images = TrainingImages(
        stacked(part.trained.images for part in parts.values()),
        stacked(part.held_out.images for part in parts.values()),
        tuple(len(part.trained.images) for part in parts.values()),
    )
    # Before anything is written that would be in the way of a better command.
    check_training(method, config.schedule, images.train, fabric.world_size)
    checkpoint = None
    if record is not None:
        checkpoint = _checkpoint_of(record, fresh, out, say)
    elif fabric.is_global_zero:
        write_record(out, fresh)
    if fabric.is_global_zero and not (out / CONTACT_SHEET).exists():
        _draw_disturbed(method, parts.values(), config.seed, out, say)

    with memory_errors(config.batch_size, config.size):
        trainer = Trainer(fabric, method, config.schedule, images, out / CHECKPOINT_FILE, progress)
        fitted = trainer.fit(checkpoint)
        if fabric.is_global_zero:
            _finish(fresh, out, method, fitted, parts, time.monotonic() - started_at)
    fabric.barrier()
    return _finished(out)


def _parts(
    datasets: Mapping[str, Dataset], config: TrainConfig, say: Callable[[str], None]
) -> dict[str, PartPictures]:
    """Read the good images of every part, by the part's name."""
    size = ModelSize.parse(config.size)
    return {
        name: read_pictures(dataset, size, config.seed, config.skip_broken, say)
        for name, dataset in datasets.items()
    }


def _method(
    config: TrainConfig,
    teacher: nn.Module,
    textures: Textures,
    parts: Mapping[str, PartPictures],
    record: RunRecord | None,
    say: Callable[[str], None],
) -> tuple[DistillationMethod, Alignment]:
    """Create the untrained method of a configuration, the same when the training is continued."""
    if record is not None:
        alignment = record.alignment
    elif config.alignment != "auto":
        alignment = cast("Alignment", config.alignment)
    else:
        alignment = _found_alignment(teacher, parts, say)
    torch.manual_seed(config.seed)
    preset, size = cast("Preset", config.preset), ModelSize.parse(config.size)
    method = create_method(
        config.method, teacher, size, config.loss, alignment, preset, textures, config.variant
    )
    return method, alignment


def _checkpoint_of(
    record: RunRecord, fresh: RunRecord, out: Path, say: Callable[[str], None]
) -> Checkpoint | None:
    """The state of an unfinished run; None where it was stopped before its first checkpoint."""
    if record.parts != fresh.parts:
        raise RunError(
            f"the pictures in {_text(fresh.config.data)} changed since {out} was begun: choose another --out"
        )
    checkpoint = read_checkpoint(out / CHECKPOINT_FILE)
    say(f"continuing {out} after epoch {checkpoint.epoch if checkpoint else 0} of {fresh.config.epochs}")
    return checkpoint


def _finished(out: Path) -> Run:
    """The run that was just written; CollapseError where the student learnt nothing."""
    record = read_record(out)
    assert record is not None
    if record.state == "collapsed":
        raise CollapseError(
            f"the training in {out} collapsed: {record.summary['collapse']}; try more epochs, another seed or teacher"
        )
    return Run(out, record)


def _textures(source: str, method_name: str) -> Textures:
    """What pseudo-anomalies are made of; a folder is looked into before anything else is done."""
    if source == PROCEDURAL:
        return ProceduralTextures()
    if not method_class(method_name).uses_textures:
        using = [name for name, method in METHODS.items() if method.uses_textures]
        raise InputError(
            f"--textures {source}, but {method_name} trains on no pseudo-anomalies: leave it out, or give "
            f"--method {' or '.join(using)}"
        )
    return FolderTextures(Path(source))


def _draw_disturbed(
    method: DistillationMethod,
    parts: Collection[PartPictures],
    seed: int,
    out: Path,
    say: Callable[[str], None],
) -> None:
    """Show what training will show the method beside good pictures, before hours are spent on it."""
    share = max(1, PICTURES_PER_SHEET // len(parts))
    shown = np.concatenate([part.held_out.images[:share] for part in parts])[:PICTURES_PER_SHEET]
    found = method.disturbed(shown, np.random.default_rng(seed))
    if found is not None:
        draw_contact_sheet(shown, *found, out / CONTACT_SHEET)
        say(f"it also trains on pictures like those in {out / CONTACT_SHEET}")


def _record_of(config: TrainConfig, out: Path) -> RunRecord | None:
    """The record of the run that `out` holds, which must be of the same configuration."""
    check_directory(out)
    record = read_record(out)
    if record is None:
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"--out {out} holds files that are not a run: choose another directory")
        return None
    for field in fields(TrainConfig):
        begun, asked = getattr(record.config, field.name), getattr(config, field.name)
        if begun != asked:
            name = field.name.replace("_", " ")
            raise RunError(
                f"{out} holds a run with {name} {_text(begun)}, not {_text(asked)}: choose another --out, or remove it"
            )
    if record.state == "collapsed":
        raise RunError(f"the run in {out} collapsed ({record.summary.get('collapse')}): choose another --out")
    return record


def _found_alignment(
    teacher: nn.Module, parts: Mapping[str, PartPictures], say: Callable[[str], None]
) -> Alignment:
    """How the parts lie, as the good images show.

    One student serves all parts, so where one of them lies any way, it must be able to rebuild any pose.
    """
    spreads = {
        name: alignment_spread(
            teacher, torch.from_numpy(part.trained.images), torch.from_numpy(part.held_out.images)
        )
        for name, part in parts.items()
    }
    # The part that lies the most ways decides for all.
    alignment = alignment_from_spread(max(spreads.values()))
    found = ", ".join(
        f"{name} {spread:.2f}" if len(parts) > 1 else f"{spread:.2f}" for name, spread in spreads.items()
    )
    say(
        f"the parts are {alignment} (spread {found}, aligned below {ALIGNED_BELOW}); --alignment overrides this"
    )
    return alignment


def _text(setting: Any) -> str:
    return " ".join(setting) if isinstance(setting, tuple) else str(setting)


def _finish(
    fresh: RunRecord,
    out: Path,
    method: DistillationMethod,
    fitted: Fitted,
    parts: Mapping[str, PartPictures],
    seconds: float,
) -> None:
    """Write what a finished run holds; the record last, because it is what says that the run is finished."""
    from safetensors.torch import save

    session = TorchSession(method)
    records, raised = {}, {}
    for name, part in parts.items():
        images = part.held_out.images
        scores = np.concatenate([session.infer(image[None]).anomaly_score for image in images])
        records[name] = replace(fresh.parts[name], threshold=threshold_from_normal_scores(scores))
        raised[name] = raised_share(session, images, fresh.config.seed)
    # The last row of a stage is the one that counts.
    after = {row["stage"]: row["holdout_loss"] for row in fitted.metrics}
    losses = list(zip(fitted.losses_before, after.values(), strict=True))
    # A model that is blind to one part is no model of these parts.
    worst = min(raised, key=lambda name: raised[name])
    sanity = Sanity(losses, raised[worst])
    state = {key: value.cpu().contiguous() for key, value in method.state_dict().items()}
    with replace_file(out / WEIGHTS_FILE) as partial:
        # Written here and not by safetensors, whose error does not say that the disk is full.
        partial.write_bytes(save(state))
    write_json(out / METRICS_FILE, fitted.metrics)
    with replace_file(out / LOSS_PICTURE) as partial:
        draw_loss_curve(fitted.metrics, partial)
    collapse = sanity.collapse()
    if collapse is not None and len(parts) > 1 and Sanity(losses, 1.0).collapse() is None:
        collapse = f"{collapse} (on pictures of {worst})"
    broken = sum(len(part.trained.broken) + len(part.held_out.broken) for part in parts.values())
    summary = {
        "loss": fitted.metrics[-1]["loss"],
        "holdout_loss": losses[-1][1],
        "holdout_loss_before": losses[-1][0],
        "raised_share": sanity.raised_share,
        "broken_pictures": broken,
        "seconds": round(seconds, 3),
        "trained_on": {name: len(part.trained.samples) for name, part in parts.items()},
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "collapse": collapse,
    }
    write_record(
        out,
        replace(
            fresh,
            state="finished" if collapse is None else "collapsed",
            parts=records,
            summary=summary,
        ),
    )
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
