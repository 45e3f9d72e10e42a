"""A training run: a directory that says what was trained, on what, and how it went.

    run.json            configuration, images held out, state, and the summary once finished
    metrics.json        one row per epoch
    checkpoint.pt       the state of an unfinished training (plain tensors and numbers); gone when it is finished
    model.safetensors   teacher and student, once finished: a run builds without the teacher's package or hub
    pseudo_anomalies.png  what the method is shown beside good images, where it is shown anything
    loss.png            loss of the training and the held-out images over the epochs

Every file is written beside and renamed, so a kill at any moment leaves a run that the same command continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from edgead import __version__
from edgead.data import LoadedImages, Sample, load_images, open_dataset, spread_over
from edgead.errors import ImageError, RunError
from edgead.files.parsing import RecordError, check_object, parse_json, read_bounded, write_json
from edgead.files.records import record_errors, record_from
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method, method_class
from edgead.models.base import STANDARD_VARIANT, Alignment, DistillationMethod, Preset
from edgead.scoring.threshold import Threshold
from edgead.training.config import TrainConfig
from edgead.training.session import TorchSession

SCHEMA = 3
MAX_JSON_BYTES = 16 * 2**20

RUN_FILE = "run.json"
METRICS_FILE = "metrics.json"
CHECKPOINT_FILE = "checkpoint.pt"
WEIGHTS_FILE = "model.safetensors"
LOSS_IMAGE = "loss.png"
CONTACT_SHEET = "pseudo_anomalies.png"

State = Literal["training", "finished", "collapsed"]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What run.json holds of one part.

    train_images: number trained on. holdout: paths, relative to the dataset, of the good images held out for the
    threshold. threshold: of the torch model on the held-out images.
    """

    train_images: int
    holdout: tuple[str, ...]
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What run.json holds.

    parts: by name, those of the configuration. alignment: how the parts lie, found or given. summary: figures of a
    finished training.
    """

    config: TrainConfig
    state: State
    parts: Mapping[str, PartRecord]
    alignment: Alignment
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run that was opened."""

    path: Path
    record: RunRecord

    @property
    def method_name(self) -> str:
        """Name of the method, as `rstpm:deep` where it is not the standard variant."""
        config = self.record.config
        return config.method if config.variant == STANDARD_VARIANT else f"{config.method}:{config.variant}"

    @property
    def teacher_name(self) -> str:
        """Timm's name of the teacher."""
        return self.record.config.teacher

    @property
    def size(self) -> ModelSize:
        """Size of the images the model takes."""
        return ModelSize.parse(self.record.config.size)

    @property
    def thresholds(self) -> dict[str, Threshold | None]:
        """Decision thresholds of the torch model, by part."""
        return {name: part.threshold for name, part in self.record.parts.items()}

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of the training: losses, seconds, images."""
        return self.record.summary

    def load_model(self) -> DistillationMethod:
        """Build the method and load its weights, on the CPU, in evaluation mode.

        Raises RunError when they are missing, broken or do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config = self.record.config
        # Their weights are in the run, whatever they were trained from.
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
            method.load_state_dict(load_file(file), strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{file} is missing, broken or of another model: train the run again") from error
        return method.eval()

    def session(self) -> TorchSession:
        """Open the model as a session on the CPU."""
        return TorchSession(self.load_model())

    def holdout_images(self) -> dict[str, LoadedImages]:
        """Read the good images that the training held out, by part.

        Raises DataError or ImageError when they are gone.
        """
        images = {}
        for name, root in self.record.config.parts.items():
            samples = [Sample(root / path, label=0) for path in self.record.parts[name].holdout]
            try:
                images[name] = load_images(samples, self.size)
            except ImageError as error:
                # Without the advice to skip it: the threshold is that of the images that were held out.
                raise ImageError(
                    f"an image that {self.path} holds out for the threshold cannot be read: put {root} back as it "
                    f"was, or train again ({error.__cause__})"
                ) from error
        return images

    def training_images(self, count: int) -> LoadedImages:
        """Read about `count` of the good images that the run was trained on, spread over all of them.

        count: 1 or more; as many of one part as of another, where there are so many. Raises DataError or ImageError
        when they are gone.
        """
        config = self.record.config
        parts = []
        for name, root in config.parts.items():
            held_out = set(self.record.parts[name].holdout)
            train = open_dataset(root, config.layout).train
            parts.append([s for s in train if s.path.relative_to(root).as_posix() not in held_out])
        return load_images(spread_over(parts, count), self.size, config.skip_broken)

    def labelled_images(self) -> dict[str, LoadedImages]:
        """Read the test images of the datasets that have some, by part, those that can be read."""
        config = self.record.config
        images = {}
        for name, root in config.parts.items():
            if samples := open_dataset(root, config.layout).test:
                images[name] = load_images(samples, self.size, skip_broken=True)
        return images


def open_run(path: Path) -> Run:
    """Open a finished run. Raises RunError when there is none, or its training is unfinished or collapsed."""
    record = read_record(path)
    if record is None:
        raise RunError(f"no training run in {path}: give a directory that edgead train wrote")
    if record.state == "collapsed":
        raise RunError(
            f"the training in {path} collapsed ({record.summary.get('collapse')}): train another run"
        )
    if record.state != "finished":
        raise RunError(f"the training in {path} is unfinished: run the same edgead train command again")
    return Run(path, record)


def read_record(path: Path) -> RunRecord | None:
    """Read run.json of a run directory, None where there is none. Raises RunError when it is not one of ours."""
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
                f"{file} was written by edgead {version[:80]!r} with schema {schema}, this one reads {SCHEMA}: install "
                "a newer edgead"
            )
        if schema != SCHEMA:
            raise RecordError(f"its schema is {schema}, not {SCHEMA}")
        record = record_from(RunRecord, value)
        if list(record.parts) != list(record.config.parts):
            raise RecordError("its parts are not those of its folders")
        for name, part in record.parts.items():
            _check_holdout(name, part.holdout)
    return record


def write_record(path: Path, record: RunRecord) -> None:
    """Write run.json of a run directory."""
    value = {"schema": SCHEMA, "edgead_version": __version__, **asdict(record)}
    write_json(path / RUN_FILE, value)


def _check_holdout(part: str, holdout: Sequence[str]) -> None:
    """Raise RecordError unless there are held-out images, and all lie inside the dataset."""
    if not holdout:
        raise RecordError(f"part {part!r} has no images held out")
    for name in holdout:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise RecordError(f"image {name[:80]!r} is outside the dataset")
