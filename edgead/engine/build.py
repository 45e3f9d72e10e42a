"""From a training run to a bundle: export, set the threshold, prove that it decides as the model did, write.

Nothing is written before everything has been checked, and then all of it at once: a build that fails or is
killed leaves the bundle that was there before as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgead.bundle import Bundle, Manifest, check_target, write_bundle
from edgead.data import LoadedPictures
from edgead.engine.verify import MAP_TOLERANCE, damaged_twins, verify
from edgead.errors import MissingExtraError
from edgead.golden import Golden, golden_bytes
from edgead.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, UInt8Array

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod

GOLDEN_PAIRS = 4
"""Good pictures, and as many damaged twins, that a bundle carries with its own answers to them."""

_BATCH = 8


class TrainedRun(Protocol):
    """What is asked of a training run; `edgead.train.run.open_run` gives one."""

    @property
    def method_name(self) -> str:
        """Name of the method."""
        ...

    @property
    def teacher_name(self) -> str:
        """Name of the teacher."""
        ...

    @property
    def size(self) -> ModelSize:
        """Size of the pictures that the model takes."""
        ...

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of the training, JSON values only."""
        ...

    def load_model(self) -> DistillationMethod:
        """The trained method in evaluation mode."""
        ...

    def session(self) -> Session:
        """The trained method as a session: the reference."""
        ...

    def holdout_pictures(self) -> LoadedPictures:
        """Good pictures that the run was not trained on."""
        ...


def build_bundle(
    run: TrainedRun,
    target: Path,
    false_alarm_rate: float = 0.01,
    confidence: float = 0.95,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Build the bundle of a run for ONNX Runtime in float32, and return it opened.

    target: the directory to write, in place of the bundle that may be there. false_alarm_rate, confidence: of
    the threshold, see `edgead.threshold`. progress: called with a line before each step.

    Raises InputError for a rate or confidence outside 0 to 1 or a target that holds something else,
    VerificationError when the graph does not decide as the model, MissingExtraError without the training
    packages, and what the run raises.
    """
    # A bad rate or place is refused now, not after minutes of exporting.
    threshold_from_normal_scores([0.0], false_alarm_rate, confidence)
    check_target(target)
    images = run.holdout_pictures().images
    progress(f"exporting {run.method_name} with {run.teacher_name} at {run.size} to ONNX")
    model = _exported(run)
    with run.session() as reference, OnnxRuntimeSession(model, size=run.size) as built:
        progress(f"setting the threshold on {len(images)} held-out good pictures")
        threshold = _threshold(reference, built, images, false_alarm_rate, confidence)
        progress("checking that the graph decides as the model")
        twins = damaged_twins(images)
        agreement = verify(reference, built, np.concatenate([images, twins]), threshold.value)
        examples = np.concatenate([images[:GOLDEN_PAIRS], twins[:GOLDEN_PAIRS]])
        prediction = built.infer(examples)
    golden = Golden(examples, prediction.anomaly_map, prediction.anomaly_score)
    manifest = Manifest(
        method=run.method_name,
        teacher=run.teacher_name,
        backend="onnxruntime",
        precision="fp32",
        size=run.size,
        threshold=threshold,
        training=run.summary,
        verification={"reference": "torch", "map_tolerance": MAP_TOLERANCE, **asdict(agreement)},
    )
    progress(f"writing {target}")
    return write_bundle(target, manifest, {"model.onnx": model, "golden.npz": golden_bytes(golden)})


def _exported(run: TrainedRun) -> bytes:
    try:
        from edgead.export.from_torch import onnx_from_method
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "edgead build") from error
    content: bytes = onnx_from_method(run.load_model(), run.size).SerializeToString()
    return content


def _threshold(
    reference: Session, built: Session, images: UInt8Array, false_alarm_rate: float, confidence: float
) -> Threshold:
    # The threshold is the score of one of these pictures, so the last bit of it would decide on that picture.
    # With the larger of its two scores each picture is on the same side for the model and for what was built
    # from it.
    scores = np.maximum(_scores(reference, images), _scores(built, images))
    return threshold_from_normal_scores(scores, false_alarm_rate, confidence)


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), _BATCH)
    return np.concatenate([session.infer(images[start : start + _BATCH]).anomaly_score for start in batches])
