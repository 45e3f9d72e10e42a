"""Turn another library's checkpoint into a finished run: the work of `edgead import`.

A threshold must come from good images that the model was not trained on, and the other library trained on all good
images of the training folder. So the good images of the test folder are held out. If there are none, a tenth of the
training images is held out, and a warning tells the user that this threshold is too low.

Before a file is written, the held-out images show whether model and dataset belong together. The check uses the loss
without and with the imported tensors, defects drawn onto the images, and the highest score that the library itself saw.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgead.data import Dataset, LoadedImages, Sample, dataset_path, load_images, open_dataset, split_holdout
from edgead.errors import DataError, InputError
from edgead.files.atomic import check_directory, check_empty, replace_directory
from edgead.files.parsing import write_json
from edgead.importers.checkpoints import MEAN, STD, ExternalCheckpoint, read_external_checkpoint
from edgead.models import create_method, method_class
from edgead.models.base import DistillationMethod
from edgead.models.imported import load_imported
from edgead.scoring.outstanding import log_outstanding
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from edgead.training.config import TrainConfig
from edgead.training.finish import image_scores
from edgead.training.records import PartRecord, RunRecord
from edgead.training.run import METRICS_FILE, WEIGHTS_FILE, Run, write_record
from edgead.training.sanity import DRAWN_DEFECTS, Sanity, raised_share
from edgead.training.session import TorchSession
from edgead.types import Float64Array

_log = logging.getLogger(__name__)

# Number of images for the loss. Each of them costs two runs of the model.
LOSS_IMAGES = 16


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Images for the threshold.

    Attributes:
        samples: The images.
        trained_on: Whether they are training images of the model.
        tested_on: Whether they are test images of the dataset.
    """

    samples: Sequence[Sample]
    trained_on: bool
    tested_on: bool


def import_run(
    file: Path, data: Path, out: Path, teacher_weights: str | None, bit_depth: int | None = None
) -> Run:
    """Import a checkpoint as a run. If it fails, nothing is written.

    Args:
        file: Checkpoint of anomalib (.ckpt, .pt) or of RD4AD (.pth).
        data: Dataset that the model was trained on.
        out: Run directory to write; it must not exist, or be empty.
        teacher_weights: Source of the teacher's weights, see `create_teacher`, for a checkpoint that holds only the
            student; None for the model hub.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Returns:
        The finished run.

    Raises:
        InputError: The checkpoint, `out` or `teacher_weights` cannot be used.
        DataError: The dataset cannot be used, or the model was not trained on it.
        TeacherError: The teacher's weights are not available.
    """
    check_directory(out)
    check_empty(out, "run of this import", hidden_too=True)
    external = read_external_checkpoint(file)
    if external.names.carries_teacher and teacher_weights is not None:
        raise InputError(f"{file} holds the teacher's weights too", hint="leave out --teacher-weights")
    _log.info("%s with %s at %s", external.source, external.backbone, external.size)
    for difference in external.names.differences:
        _log.info("unlike in the original model, %s", difference)
    # The record holds absolute paths of datasets.
    data = dataset_path(data)
    dataset = open_dataset(data).read_as(bit_depth)
    held_out = _held_out(dataset)
    weights = "imported" if external.names.carries_teacher else teacher_weights or "hub"
    config = replace(_config(external, data, dataset, weights), bit_depth=bit_depth)
    method = _untrained(external, config.seed, config.teacher_weights, config.loss)
    loaded = load_images(held_out.samples, external.size)
    _log_origin(held_out, len(loaded.samples))
    untrained = _loss(method, loaded)
    load_imported(method, external.tensors, external.names)
    scores = image_scores(session := TorchSession(method), loaded)
    sanity = Sanity(
        [(untrained, _loss(method, loaded))],
        raised_share(session, loaded.images[:DRAWN_DEFECTS], config.seed),
    )
    _check_belonging(external, sanity, scores, data)
    threshold = _threshold(scores, loaded, dataset.name)
    part = PartRecord(
        train_images=len(dataset.train) - (len(loaded.samples) if held_out.trained_on else 0),
        holdout=tuple(sample.path.relative_to(data).as_posix() for sample in loaded.samples),
        threshold=threshold,
    )
    summary = _summary(external, file, held_out, sanity)
    record = RunRecord(config, "finished", {dataset.name: part}, "unaligned", (), summary)
    _write(out, record, method)
    if (warning := threshold.warning()) is not None:
        _log.warning("%s", warning)
    return Run(out, record)


def _threshold(scores: Float64Array, loaded: LoadedImages, part: str) -> Threshold:
    """Set the threshold, and name the images that alone set it."""
    threshold = threshold_from_normal_scores(scores)
    files = (str(sample.path) for sample in loaded.samples)
    log_outstanding(threshold, dict(zip(files, scores.tolist(), strict=True)), part, "import again")
    return threshold


def _summary(external: ExternalCheckpoint, file: Path, held_out: _HeldOut, sanity: Sanity) -> dict[str, Any]:
    """Return the figures of an import for its record."""
    return {
        "imported_from": external.source,
        "imported_sha256": _sha256(file),
        "differences": list(external.names.differences),
        "holdout_trained_on": held_out.trained_on,
        "holdout_loss": sanity.losses[0][1],
        "holdout_loss_before": sanity.losses[0][0],
        "raised_share": sanity.raised_share,
    }


def _held_out(dataset: Dataset) -> _HeldOut:
    """Choose the images for the threshold: validation, good test images, or a tenth of the training images."""
    if dataset.validation:
        return _HeldOut(dataset.validation, trained_on=False, tested_on=False)
    if good := [sample for sample in dataset.test if sample.label == 0]:
        return _HeldOut(good, trained_on=False, tested_on=True)
    _, samples = split_holdout(dataset.train)
    return _HeldOut(samples, trained_on=True, tested_on=False)


def _log_origin(held_out: _HeldOut, count: int) -> None:
    """Log which images set the threshold, and the consequence for the user."""
    if held_out.trained_on:
        _log.warning(
            "the dataset has no good test images, so %d images that the model was trained on set the threshold: it "
            "is too low and gives more false alarms than the given rate; put good images that the model was not "
            "trained on into test/good, and import again",
            count,
        )
    elif held_out.tested_on:
        _log.info(
            "%d good test images set the threshold, so do not estimate the false-alarm rate on the same images; "
            "AUROC does not depend on the threshold",
            count,
        )


def _config(external: ExternalCheckpoint, data: Path, dataset: Dataset, weights: str) -> TrainConfig:
    """Describe the training. Settings that the checkpoint does not hold are the method's paper hyperparameters."""
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
        fusion=method_class(external.method).fusion,
    )


def _untrained(
    external: ExternalCheckpoint, seed: int, teacher_weights: str, loss: str
) -> DistillationMethod:
    """Create the method with an untrained student; the teacher has its weights if the checkpoint has none."""
    torch.manual_seed(seed)
    weights = "random" if external.names.carries_teacher else teacher_weights
    teacher = method_class(external.method).create_teacher(external.backbone, weights)
    for name, values in (("mean", MEAN), ("std", STD)):
        if not torch.allclose(getattr(teacher, name).flatten() / 255.0, torch.tensor(values)):
            raise InputError(
                "the checkpoint normalises images with ImageNet's mean and std, and edgead normalises images for "
                f"{external.backbone} with the mean and std of timm's weights",
                hint="train the model again with edgead train",
            )
    return create_method(external.method, teacher, external.size, loss, "unaligned", "paper").eval()


@torch.no_grad()
def _loss(method: DistillationMethod, loaded: LoadedImages) -> float:
    """Mean loss over the first images."""
    images = (torch.from_numpy(image[None]) for image in loaded.images[:LOSS_IMAGES])
    return float(np.mean([float(method(image, method.teacher_features(image))) for image in images]))


def _check_belonging(external: ExternalCheckpoint, sanity: Sanity, scores: np.ndarray, data: Path) -> None:
    """Raise DataError if the scores of the held-out images show that the model belongs to other parts."""
    reason = sanity.collapse()
    median = float(np.median(scores))
    if external.highest_score is not None and median > external.highest_score:
        reason = (
            f"half of its good images score above {median:.4g}, and {external.source} saw none above "
            f"{external.highest_score:.4g}"
        )
    if reason is not None:
        raise DataError(
            f"the model does not fit the images in {data} ({reason})",
            hint="give the dataset that it was trained on",
        )


def _write(out: Path, record: RunRecord, method: DistillationMethod) -> None:
    """Write the run directory beside its place and rename it."""
    from safetensors.torch import save

    state = {name: tensor.cpu().contiguous() for name, tensor in method.state_dict().items()}
    with replace_directory(out) as partial:
        (partial / WEIGHTS_FILE).write_bytes(save(state))
        write_json(partial / METRICS_FILE, [])
        write_record(partial, record)


def _sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
