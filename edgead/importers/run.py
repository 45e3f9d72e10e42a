"""From another library's checkpoint to a finished run: what `edgead import` does.

A threshold must come from good pictures that the model was not trained on, and the other library trained on all good
pictures of the training folder. So those of the test folder are held out, where there are any; where there are none, a
tenth of the training pictures is, and whoever imports is told that such a threshold is too low.

Whether model and dataset belong together is asked of the held-out pictures before anything is written: of the loss
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

from edgead.data import Dataset, LoadedPictures, Sample, load_pictures, open_dataset, split_holdout
from edgead.errors import DataError, InputError
from edgead.files.atomic import check_directory, replace_directory
from edgead.files.parsing import write_json
from edgead.importers.checkpoints import MEAN, STD, Foreign, read_foreign
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

# Pictures that the loss is asked of: each costs two runs of the model.
LOSS_PICTURES = 16


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Pictures for the threshold. trained_on: whether they may be among those that the model was trained on."""

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
    foreign = read_foreign(file)
    if foreign.names.carries_teacher and teacher_weights is not None:
        raise InputError(f"{file} holds the teacher's weights too: leave out --teacher-weights")
    _log.info("%s with %s at %s", foreign.source, foreign.backbone, foreign.size)
    for difference in foreign.names.differences:
        _log.info("unlike there, %s", difference)
    # The record names pictures from the folder's full path, as that of a training does.
    data = data.resolve()
    dataset = open_dataset(data)
    held_out = _held_out(dataset)
    weights = "imported" if foreign.names.carries_teacher else teacher_weights or "hub"
    config = _config(foreign, data, dataset, weights)
    method = _untrained(foreign, config.seed, config.teacher_weights, config.loss)
    pictures = load_pictures(held_out.samples, foreign.size)
    _log_origin(held_out, len(pictures.samples))
    untrained = _loss(method, pictures)
    load_imported(method, foreign.tensors, foreign.names)
    session = TorchSession(method)
    scores = np.concatenate([session.infer(image[None]).anomaly_score for image in pictures.images])
    sanity = Sanity(
        [(untrained, _loss(method, pictures))], raised_share(session, pictures.images, config.seed)
    )
    _check_belonging(foreign, sanity, scores, data)
    part = PartRecord(
        train_pictures=len(dataset.train) - (len(pictures.samples) if held_out.trained_on else 0),
        holdout=tuple(sample.path.relative_to(data).as_posix() for sample in pictures.samples),
        threshold=threshold_from_normal_scores(scores),
    )
    record = RunRecord(
        config=config,
        state="finished",
        parts={dataset.name: part},
        alignment="unaligned",
        summary={
            "imported_from": foreign.source,
            "imported_sha256": _sha256(file),
            "differences": list(foreign.names.differences),
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
    """Log which pictures set the threshold, and what follows from it."""
    if held_out.trained_on:
        _log.warning(
            "the dataset has no good test pictures, so %d that the model was trained on set the threshold: it is too "
            "low, and there will be more false alarms than asked for; put good pictures that it was not trained on "
            "into test/good, and import again",
            count,
        )
    else:
        _log.info(
            "%d good test pictures set the threshold, so false alarms counted on these say nothing new; AUROC is not "
            "touched by it",
            count,
        )


def _config(foreign: Foreign, data: Path, dataset: Dataset, weights: str) -> TrainConfig:
    """What is known of the training; what only its repetition would ask for is the method's recipe."""
    recipe = method_class(foreign.method).recipes["paper"]
    return TrainConfig(
        data=(str(data),),
        layout=dataset.layout,
        method=foreign.method,
        preset="paper",
        teacher=foreign.backbone,
        teacher_weights=weights,
        size=str(foreign.size),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        loss="flattened" if "flattened" in method_class(foreign.method).losses else recipe.loss,
        alignment="unaligned",
    )


def _untrained(foreign: Foreign, seed: int, teacher_weights: str, loss: str) -> DistillationMethod:
    """The method with the teacher's weights where the checkpoint does not hold them, and a student without any."""
    torch.manual_seed(seed)
    weights = "random" if foreign.names.carries_teacher else teacher_weights
    teacher = method_class(foreign.method).create_teacher(foreign.backbone, weights)
    for name, values in (("mean", MEAN), ("std", STD)):
        if not torch.allclose(getattr(teacher, name).flatten() / 255.0, torch.tensor(values)):
            raise InputError(
                f"the checkpoint feeds {foreign.backbone} with ImageNet's mean and std, and edgead with those of "
                "timm's own weights: train it again by edgead train"
            )
    return create_method(foreign.method, teacher, foreign.size, loss, "unaligned", "paper").eval()


@torch.no_grad()
def _loss(method: DistillationMethod, pictures: LoadedPictures) -> float:
    images = (torch.from_numpy(image[None]) for image in pictures.images[:LOSS_PICTURES])
    return float(np.mean([float(method(image, method.teacher_features(image))) for image in images]))


def _check_belonging(foreign: Foreign, sanity: Sanity, scores: np.ndarray, data: Path) -> None:
    reason = sanity.collapse()
    median = float(np.median(scores))
    if foreign.highest_score is not None and median > foreign.highest_score:
        reason = (
            f"half of its good pictures score above {median:.4g}, and {foreign.source} saw none above "
            f"{foreign.highest_score:.4g}"
        )
    if reason is not None:
        raise DataError(
            f"the model does not fit the pictures in {data} ({reason}): give the dataset it was trained on"
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
