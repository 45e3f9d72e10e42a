"""Going on with a finished run when its datasets have new images: `edgead train DATA --from RUN`.

The new run starts with the weights of the old one and trains on the old and the new images, for fewer epochs and at a
lower learning rate. Images that the old run was trained on are never held out, because their scores would be too low.
The old run is only read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from edgead.data import Dataset, Sample, drawing_order
from edgead.errors import DataError, InputError
from edgead.imaging.preprocess import ModelSize
from edgead.models import method_class
from edgead.training.changes import file_hashes
from edgead.training.config import TrainConfig
from edgead.training.records import PartRecord
from edgead.training.run import Run
from edgead.training.schedule import EPOCHS_SHARE, RATE_SHARE, check_one_stage

# Options that may differ from those of the run.
_FREE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "early_stop",
    "skip_broken",
    "false_alarm_rate",
    "training_precision",
)

_log = logging.getLogger(__name__)


class Division(NamedTuple):
    """Division of the good images of a part: samples to train on, and held-out samples."""

    trained: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


def update_config(run: Run, data: tuple[str, ...], given: Mapping[str, Any]) -> TrainConfig:
    """Make the configuration of an update.

    Args:
        run: Finished run to go on with.
        data: Absolute paths of the datasets.
        given: Options that the user gave, by the names of `TrainConfig`.

    Returns:
        The configuration of the run with other data, fewer epochs and a lower learning rate.

    Raises:
        InputError: The parts are others, an option belongs to the run, or its method cannot go on.
    """
    old = run.record.config
    for field in fields(TrainConfig):
        name = field.name
        if name in (*_FREE, "data", "base") or name not in given:
            continue
        kind = ModelSize.parse if name == "size" else lambda value: value
        if kind(given[name]) != kind(getattr(old, name)):
            option = name.replace("_", "-")
            raise InputError(
                f"--{option} {given[name]} with --from, but {run.path} has {getattr(old, name)}",
                hint=f"leave out --{option}, or train anew",
            )
    check_one_stage(old.method, old.preset, f"--from {run.path}", "train anew, without --from")
    fewer: dict[str, Any] = {}
    if not method_class(old.method).closed_form:
        fewer = {
            "epochs": max(1, old.epochs // EPOCHS_SHARE),
            "learning_rate": old.learning_rate / RATE_SHARE,
        }
    free = {name: given[name] for name in _FREE if name in given}
    config = replace(old, data=data, base=str(run.path.resolve()), **{**fewer, **free})
    if list(config.parts) != list(old.parts):
        raise InputError(
            f"{run.path} has the parts {', '.join(old.parts)}, not {', '.join(config.parts)}",
            hint="give folders of these names, in this order",
        )
    return config


def divide(dataset: Dataset, record: PartRecord, seed: int, crossed: bool = False) -> Division:
    """Divide the good images of a part for an update: known images stay on their side.

    Args:
        dataset: Dataset with the old and the new images.
        record: Record of the part in the old run.
        seed: Seed of the choice of new images that are held out.
        crossed: Whether all images are cross-fitted; then they are on both sides.

    Returns:
        The division. Of the new images as large a share is held out as in the old run, and one or more if none of the
        old held-out images is left.

    Raises:
        DataError: There is no new image, the old run does not record its images, or a side would be empty.
    """
    if not record.files:
        raise DataError("the run does not record its images", hint="train anew, without --from")
    held_before = {record.files[name] for name in record.holdout if name in record.files}
    known = set(record.files.values())
    apart = set(dataset.validation)
    samples = (*dataset.train, *dataset.validation)
    hashes = file_hashes(samples)
    new = [sample for sample, found in zip(samples, hashes, strict=True) if found not in known]
    if not new:
        raise DataError(
            f"{dataset.name} has no images that the run does not know", hint="add images of good parts"
        )
    held = {sample for sample, found in zip(samples, hashes, strict=True) if found in held_before}
    held |= apart.intersection(new)
    free = [sample for sample in new if sample not in apart]
    count = 0 if apart else round(len(free) * len(held_before) / len(record.files))
    held |= {free[number] for number in drawing_order(free, seed)[: max(count, int(not held))]}
    trained = tuple(sample for sample in samples if crossed or sample not in held)
    if not (held and trained):
        raise DataError(
            f"{len(samples)} good images are too few to train on and to set the threshold", hint="add images"
        )
    _log.info(
        "%s: %d new images, %s; of %d old images %d are no longer there",
        dataset.name,
        len(new),
        "cross-fitted as the old ones" if crossed else f"{len(held.intersection(new))} of them held out",
        len(record.files),
        len(known - set(hashes)),
    )
    return Division(trained, tuple(sample for sample in samples if crossed or sample in held))


def check_image_size(part: str, old: PartRecord, image_px: tuple[int, int] | None) -> None:
    """Check that the images of an update have the size of those of its run.

    Args:
        part: Name of the part.
        old: Record of the part in the old run.
        image_px: Height and width of all images of the update; None if they differ.

    Raises:
        DataError: They have another size, or several, and the old ones had one.
    """
    if old.image_px is None or image_px == old.image_px:
        return
    found = "several sizes" if image_px is None else f"{image_px[1]}x{image_px[0]} pixels"
    raise DataError(
        f"the images of {part} have {found}, and those of the run of --from {old.image_px[1]}x{old.image_px[0]}",
        hint="give images of the same camera, or train anew",
    )
