"""A training run: a directory with the configuration, the weights and the results of a training.

    run.json              configuration, images that set the threshold, state; the summary when the training is finished
    metrics.json          one row per epoch
    metrics.csv           the same figures as a table
    checkpoint.pt         the state of an unfinished training (plain tensors and numbers); removed at the end
    model.safetensors     teacher and student of a finished run, so that a build needs no package or hub for the teacher
    pseudo_anomalies.png  examples of the pseudo-anomalies, if the method trains on any
    loss.png              loss of the training images and the held-out images over the epochs

Every file is written beside its place and renamed, so a kill at any moment leaves a run that can be continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from edgead import __version__
from edgead.data import LoadedImages, Sample, load_images, spread_over
from edgead.errors import ImageError, RunError
from edgead.files.parsing import RecordError, check_object, parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.models import create_method, method_class
from edgead.models.base import STANDARD_VARIANT, DistillationMethod, Preset
from edgead.scoring.threshold import Threshold
from edgead.text import path_from_text, path_text
from edgead.training.record_paths import check_holdout, with_paths
from edgead.training.records import RunRecord
from edgead.training.session import TorchSession

SCHEMA = 9
MAX_JSON_BYTES = 16 * 2**20

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
METRICS_TABLE = "metrics.csv"
CHECKPOINT_FILE = "checkpoint.pt"
WEIGHTS_FILE = "model.safetensors"
LOSS_IMAGE = "loss.png"
CONTACT_SHEET = "pseudo_anomalies.png"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: Run directory.
        record: Content of run.json.
    """

    path: Path
    record: RunRecord

    @property
    def method_name(self) -> str:
        """Name of the method, with its variant if that is not the standard one, such as "rstpm:deep"."""
        config = self.record.config
        return config.method if config.variant == STANDARD_VARIANT else f"{config.method}:{config.variant}"

    @property
    def teacher_name(self) -> str:
        """Name of the teacher in timm."""
        return self.record.config.teacher

    @property
    def size(self) -> ModelSize:
        """Image size of the model."""
        return ModelSize.parse(self.record.config.size)

    @property
    def bit_depth(self) -> int | None:
        """Depth of the values of image files with samples of 16 bits; None for the depth of the files."""
        return self.record.config.bit_depth

    @property
    def view(self) -> View:
        """Part of an image that the model inspects, and the way to its size."""
        return self.record.config.view

    @property
    def false_alarm_rate(self) -> float:
        """Share of good parts that the threshold of the run may call defective."""
        return self.record.config.false_alarm_rate

    @property
    def thresholds(self) -> dict[str, Threshold | None]:
        """Decision thresholds of the torch model, by name of the part."""
        return {name: part.threshold for name, part in self.record.parts.items()}

    @property
    def score_ratios(self) -> dict[str, tuple[float, ...]]:
        """Ratios of cross-fitted scores in the order of `holdout_images`, by part; parts with held-out images: none."""
        return {name: part.ratios for name, part in self.record.parts.items() if part.ratios}

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of the training, such as losses, seconds and numbers of images."""
        return self.record.summary

    def load_model(self) -> DistillationMethod:
        """Build the method and load its weights.

        Returns:
            The method on the CPU, in evaluation mode.

        Raises:
            RunError: The weights are missing, broken or belong to another model.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        config = self.record.config
        # The run holds the teacher's weights, wherever they came from.
        teacher = method_class(config.method).create_teacher(config.teacher, "random")
        preset = cast("Preset", config.preset)
        method = create_method(
            config.method,
            teacher,
            self.size,
            config.loss,
            self.record.alignment,
            preset,
            variant=config.variant,
        )
        file = self.path / WEIGHTS_FILE
        try:
            # Not by its path, because the library takes Unicode paths only.
            method.load_state_dict(load(file.read_bytes()), strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(
                f"{file} is missing, broken or of another model", hint="train the run again"
            ) from error
        method.eval()
        try:
            method.head = replace(method.head, weights=self.record.scale_weights, fusion=config.fusion)
            if method.head.weights:
                method.head.weights_of(_scales_of(method))
        except ValueError as error:
            raise RunError(
                f"'scale_weights' in {self.path / RUN_FILE} does not fit the model ({error})",
                hint="train the run again",
            ) from error
        return method

    def session(self) -> TorchSession:
        """Open the model as a session on the CPU. See `load_model` for its errors."""
        return TorchSession(self.load_model())

    def holdout_images(self) -> dict[str, LoadedImages]:
        """Read the good images that set the threshold, which the training held out or cross-fitted.

        Returns:
            Images by name of the part.

        Raises:
            ImageError: An image is missing or cannot be read.
        """
        images = {}
        for name, root in self.record.config.parts.items():
            paths = self.record.parts[name].holdout
            samples = [Sample(root / path, 0, bit_depth=self.bit_depth, view=self.view) for path in paths]
            try:
                images[name] = load_images(samples, self.size)
            except ImageError as error:
                # The hint of the original error is to skip the image, but the threshold depends on all of them.
                raise ImageError(
                    f"an image that sets the threshold of {self.path} cannot be read ({error.what})",
                    hint=f"restore the images in {root}, or train again",
                ) from error
        return images

    def training_images(self, count: int) -> LoadedImages:
        """Read some of the run's training images, spread evenly over all of them.

        Args:
            count: Approximate number of images, 1 or more, divided equally among the parts. If a part has fewer
                images, all of them are returned.

        Returns:
            The images, part after part.

        Raises:
            DataError: A dataset is missing.
            ImageError: An image cannot be read.
        """
        config = self.record.config
        parts = []
        for name, dataset in config.open_datasets().items():
            root, record = config.parts[name], self.record.parts[name]
            # Cross-fitted images are training images.
            held_out = set[str]() if record.ratios else set(record.holdout)
            parts.append([s for s in dataset.train if s.path.relative_to(root).as_posix() not in held_out])
        return load_images(spread_over(parts, count), self.size, config.skip_broken)

    def labelled_images(self) -> dict[str, LoadedImages]:
        """Read the test images of the datasets. Images that cannot be read are skipped.

        Returns:
            Images by name of the part, for the parts that have test images.

        Raises:
            DataError: A dataset is missing.
        """
        tests = {name: dataset.test for name, dataset in self.record.config.open_datasets().items()}
        return {name: load_images(test, self.size, skip_broken=True) for name, test in tests.items() if test}


def open_run(path: Path) -> Run:
    """Open a finished run.

    Args:
        path: Run directory.

    Returns:
        The run; its weights are not loaded yet.

    Raises:
        RunError: There is no run, or its training is unfinished or collapsed.
    """
    record = read_record(path)
    if record is None:
        raise RunError(f"no training run in {path}", hint="give a directory that edgead train wrote")
    if record.state == "collapsed":
        raise RunError(
            f"the training in {path} collapsed ({record.summary.get('collapse')})", hint="train another run"
        )
    if record.state != "finished":
        raise RunError(
            f"the training in {path} is unfinished", hint="run the same edgead train command again"
        )
    return Run(path, record)


def read_record(path: Path) -> RunRecord | None:
    """Read run.json of a run directory.

    Args:
        path: Run directory.

    Returns:
        The record; None if there is no run.json.

    Raises:
        RunError: The file is not a record of a training run, or a newer edgead wrote it.
    """
    file = path / RUN_FILE
    if not file.exists():
        return None
    what = f"{file} is not the record of a training run"
    with record_errors(RunError, what, "train the run again"):
        value = check_object(parse_json(read_bounded(file, MAX_JSON_BYTES), MAX_JSON_BYTES))
        schema = record_from(int, value.pop("schema", None), "schema")
        version = record_from(str, value.pop("edgead_version", None), "edgead_version")
        if schema > SCHEMA:
            raise RunError(
                f"edgead {version[:80]!r} wrote {file} with schema {schema}, and this version reads schema {SCHEMA}",
                hint="install a newer edgead",
            )
        if schema != SCHEMA:
            raise RecordError(f"its schema is {schema}, not {SCHEMA}")
        record = with_paths(record_from(RunRecord, value), path_from_text)
        if list(record.parts) != list(record.config.parts):
            raise RecordError("the names of its parts differ from the names of its folders")
        for name, part in record.parts.items():
            check_holdout(name, part.holdout)
    return record


def _scales_of(method: DistillationMethod) -> int:
    """Count the scales of a method with one black image."""
    import torch

    size = method.head
    with torch.no_grad():
        teacher, _ = method.features(torch.zeros((1, size.height, size.width, 3), dtype=torch.uint8))
    return len(teacher)


def write_record(path: Path, record: RunRecord) -> None:
    """Write run.json of a run directory.

    Args:
        path: Run directory.
        record: Content of the file.

    Raises:
        EdgeadError: The disk is full.
    """
    value = {"schema": SCHEMA, "edgead_version": __version__, **asdict(with_paths(record, path_text))}
    write_json(path / RUN_FILE, value)
