"""From another library's checkpoint to a finished run: what `edgead import` does.

A threshold must come from good images that the model was not trained on, and the other library trained on all good
images of the training folder. So those of the test folder are held out, where there are any; where there are none, a
tenth of the training images is, and the user is warned that such a threshold is too low.

Whether model and dataset belong together is asked of the held-out images before anything is written: of the loss
without and with the imported tensors, of defects drawn onto them, and of the highest score that the library itself saw.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgead.data import Dataset, LoadedImages, Sample, load_images, open_dataset, split_holdout
from edgead.errors import DataError, InputError
from edgead.files.atomic import check_directory, replace_directory
from edgead.files.parsing import write_json
from edgead.importers.checkpoints import MEAN, STD, ExternalCheckpoint, read_external_checkpoint
from edgead.models import create_method, method_class
from edgead.models.base import DistillationMethod
from edgead.models.imported import load_imported
from edgead.scoring.threshold import threshold_from_normal_scores
from edgead.training.config import TrainConfig
from edgead.training.images import HOLDOUT_SHARE
from edgead.training.run import METRICS_FILE, WEIGHTS_FILE, PartRecord, Run, RunRecord, write_record
from edgead.training.sanity import Sanity, raised_share
from edgead.training.session import TorchSession

_log = logging.getLogger(__name__)

# Images that the loss is asked of: each costs two runs of the model.
LOSS_IMAGES = 16


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Images for the threshold. trained_on: whether they may be among those that the model was trained on."""

    samples: Sequence[Sample]
    trained_on: bool


def import_run(file: Path, data: Path, out: Path, teacher_weights: str | None) -> Run:
    """Write the run of a checkpoint, whole or not at all, and return it.

    data: the dataset that the model was trained on. out: a directory that is not there, or is empty. teacher_weights:
    as `create_teacher` takes them, for a checkpoint that holds its student alone; None for the model hub.

    Raises InputError for the checkpoint, `out` or `teacher_weights`, DataError for the dataset or where the two do not
    belong together, TeacherError for weights of a teacher.
    """
    check_directory(out)
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty: choose another directory")
    external = read_external_checkpoint(file)
    if external.names.carries_teacher and teacher_weights is not None:
        raise InputError(f"{file} holds the teacher's weights too: leave out --teacher-weights")
    _log.info("%s with %s at %s", external.source, external.backbone, external.size)
    for difference in external.names.differences:
        _log.info("unlike there, %s", difference)
    # The record names images from the folder's full path, as that of a training does.
    data = data.resolve()
    dataset = open_dataset(data)
    held_out = _held_out(dataset)
    weights = "imported" if external.names.carries_teacher else teacher_weights or "hub"
    config = _config(external, data, dataset, weights)
    method = _untrained(external, config.seed, config.teacher_weights, config.loss)
    loaded = load_images(held_out.samples, external.size)
    _log_origin(held_out, len(loaded.samples))
    untrained = _loss(method, loaded)
    load_imported(method, external.tensors, external.names)
    session = TorchSession(method)
    scores = np.concatenate([session.infer(image[None]).anomaly_score for image in loaded.images])
    sanity = Sanity([(untrained, _loss(method, loaded))], raised_share(session, loaded.images, config.seed))
    _check_belonging(external, sanity, scores, data)
    part = PartRecord(
        train_images=len(dataset.train) - (len(loaded.samples) if held_out.trained_on else 0),
        holdout=tuple(sample.path.relative_to(data).as_posix() for sample in loaded.samples),
        threshold=threshold_from_normal_scores(scores),
    )
    record = RunRecord(
        config=config,
        state="finished",
        parts={dataset.name: part},
        alignment="unaligned",
        summary={
            "imported_from": external.source,
            "imported_sha256": _sha256(file),
            "differences": list(external.names.differences),
            "holdout_trained_on": held_out.trained_on,
            "holdout_loss": sanity.losses[0][1],
            "holdout_loss_before": sanity.losses[0][0],
            "raised_share": sanity.raised_share,
        },
    )
    _write(out, record, method)
    if part.threshold is not None and (warning := part.threshold.warning()) is not None:
        _log.warning("%s", warning)
    return Run(out, record)


def _held_out(dataset: Dataset) -> _HeldOut:
    if good := [sample for sample in dataset.test if sample.label == 0]:
        return _HeldOut(good, trained_on=False)
    _, samples = split_holdout(dataset.train, HOLDOUT_SHARE)
    return _HeldOut(samples, trained_on=True)


def _log_origin(held_out: _HeldOut, count: int) -> None:
    """Log which images set the threshold, and what follows from it."""
    if held_out.trained_on:
        _log.warning(
            "the dataset has no good test images, so %d that the model was trained on set the threshold: it is too "
            "low, and there will be more false alarms than asked for; put good images that it was not trained on "
            "into test/good, and import again",
            count,
        )
    else:
        _log.info(
            "%d good test images set the threshold, so false alarms counted on these say nothing new; AUROC is not "
            "touched by it",
            count,
        )


def _config(external: ExternalCheckpoint, data: Path, dataset: Dataset, weights: str) -> TrainConfig:
    """What is known of the training; what only its repetition would ask for is the hyperparameters of the method."""
    hyperparameters = method_class(external.method).presets["paper"]
    return TrainConfig(
        data=(str(data),),
        layout=dataset.layout,
        method=external.method,
        preset="paper",
        teacher=external.backbone,
        teacher_weights=weights,
        size=str(external.size),
        epochs=hyperparameters.epochs,
        batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        loss="flattened" if "flattened" in method_class(external.method).losses else hyperparameters.loss,
        alignment="unaligned",
    )


def _untrained(
    external: ExternalCheckpoint, seed: int, teacher_weights: str, loss: str
) -> DistillationMethod:
    """The method with the teacher's weights where the checkpoint does not hold them, and a student without any."""
    torch.manual_seed(seed)
    weights = "random" if external.names.carries_teacher else teacher_weights
    teacher = method_class(external.method).create_teacher(external.backbone, weights)
    for name, values in (("mean", MEAN), ("std", STD)):
        if not torch.allclose(getattr(teacher, name).flatten() / 255.0, torch.tensor(values)):
            raise InputError(
                f"the checkpoint feeds {external.backbone} with ImageNet's mean and std, and edgead with those of "
                "timm's own weights: train it again by edgead train"
            )
    return create_method(external.method, teacher, external.size, loss, "unaligned", "paper").eval()


@torch.no_grad()
def _loss(method: DistillationMethod, loaded: LoadedImages) -> float:
    images = (torch.from_numpy(image[None]) for image in loaded.images[:LOSS_IMAGES])
    return float(np.mean([float(method(image, method.teacher_features(image))) for image in images]))


def _check_belonging(external: ExternalCheckpoint, sanity: Sanity, scores: np.ndarray, data: Path) -> None:
    reason = sanity.collapse()
    median = float(np.median(scores))
    if external.highest_score is not None and median > external.highest_score:
        reason = (
            f"half of its good images score above {median:.4g}, and {external.source} saw none above "
            f"{external.highest_score:.4g}"
        )
    if reason is not None:
        raise DataError(
            f"the model does not fit the images in {data} ({reason}): give the dataset it was trained on"
        )


def _write(out: Path, record: RunRecord, method: DistillationMethod) -> None:
    from safetensors.torch import save

    state = {name: tensor.cpu().contiguous() for name, tensor in method.state_dict().items()}
    with replace_directory(out) as partial:
        (partial / WEIGHTS_FILE).write_bytes(save(state))
        write_json(partial / METRICS_FILE, [])
        write_record(partial, record)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
