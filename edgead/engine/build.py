"""From a training run to a bundle: export, set the threshold, prove that it decides as the model did, write.

Nothing is written before everything has been checked, and then all of it at once: a build that fails or is
killed leaves the bundle that was there before as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgead.bundle import Bundle, Manifest, check_target, write_bundle
from edgead.data import LoadedPictures
from edgead.engine.lower import Lowering, lower
from edgead.engine.verify import BUDGETS, EXACT, damaged_twins, verify
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

    def training_pictures(self, count: int) -> LoadedPictures:
        """At most so many good pictures that the run was trained on."""
        ...


def build_bundle(
    run: TrainedRun,
    target: Path,
    false_alarm_rate: float = 0.01,
    confidence: float = 0.95,
    progress: Callable[[str], None] = lambda _: None,
    lowering: Lowering = Lowering(),  # noqa: B008 (it is frozen)
) -> Bundle:
    """Build the bundle of a run for ONNX Runtime, and return it opened.

    target: the directory to write, in place of the bundle that may be there. false_alarm_rate, confidence: of
    the threshold, see `edgead.threshold`. progress: called with a line before each step. lowering: the
    precision. The float32 graph is verified against torch in any case, and is the reference of a lower one,
    which has a threshold of its own scores.

    Raises InputError for a rate or confidence outside 0 to 1 or a target that holds something else,
    VerificationError when a graph does not decide as its reference, MissingExtraError without the training
    packages, what `lower` raises and what the run raises.
    """
    # A bad rate or place is refused now, not after minutes of exporting.
    threshold_from_normal_scores([0.0], false_alarm_rate, confidence)
    check_target(target)
    judges = _Judges(run.holdout_pictures().images, false_alarm_rate, confidence)
    progress(f"exporting {run.method_name} with {run.teacher_name} at {run.size} to ONNX")
    built = _exact(run, _exported(run), judges, progress)
    if lowering.precision != "fp32":

        def training_images(count: int) -> UInt8Array:
            return run.training_pictures(count).images

        built = _lower(built, lowering, target.name, judges, training_images, progress)
    examples = np.concatenate([judges.good[:GOLDEN_PAIRS], judges.twins[:GOLDEN_PAIRS]])
    with OnnxRuntimeSession(built.model, size=run.size) as session:
        prediction = session.infer(examples)
    golden = Golden(examples, prediction.anomaly_map, prediction.anomaly_score)
    manifest = Manifest(
        method=run.method_name,
        teacher=run.teacher_name,
        backend="onnxruntime",
        precision=lowering.precision,
        size=run.size,
        threshold=built.threshold,
        training=run.summary,
        verification=built.verification,
    )
    files = {"model.onnx": built.model, "golden.npz": golden_bytes(golden), **built.files}
    progress(f"writing {target}")
    return write_bundle(target, manifest, files)


class _Judges:
    """The pictures that set thresholds and judge what was built: good ones held out, and their damaged twins."""

    def __init__(self, good: UInt8Array, false_alarm_rate: float, confidence: float) -> None:
        self.good, self.twins = good, damaged_twins(good)
        self.all = np.concatenate([self.good, self.twins])
        self._false_alarm_rate, self._confidence = false_alarm_rate, confidence

    def threshold(self, *sessions: Session) -> Threshold:
        """Of the larger of the scores that these sessions give each good picture."""
        scores = np.max([_scores(session, self.good) for session in sessions], axis=0)
        return threshold_from_normal_scores(scores, self._false_alarm_rate, self._confidence)


@dataclass(frozen=True, slots=True)
class _Built:
    """A graph that was verified: what the bundle says of it, and the files it brings beside itself."""

    model: bytes
    threshold: Threshold
    verification: Mapping[str, Any]
    files: Mapping[str, bytes]


def _exact(run: TrainedRun, model: bytes, judges: _Judges, progress: Callable[[str], None]) -> _Built:
    """The float32 graph, verified against the trained model."""
    with run.session() as reference, OnnxRuntimeSession(model, size=run.size) as built:
        progress(f"setting the threshold on {len(judges.good)} held-out good pictures")
        # The threshold is the score of one of these pictures, so the last bit of it would decide on that
        # picture. With the larger of its two scores each picture is on the same side for the model and for
        # what was built from it.
        threshold = judges.threshold(reference, built)
        progress("checking that the graph decides as the model")
        agreement = verify(reference, built, judges.all, threshold.value)
    return _Built(
        model, threshold, {"reference": "torch", **asdict(agreement), "limits": asdict(EXACT)}, files={}
    )


def _lower(
    exact: _Built,
    lowering: Lowering,
    name: str,
    judges: _Judges,
    training_images: Callable[[int], UInt8Array],
    progress: Callable[[str], None],
) -> _Built:
    """A graph of lower precision, verified against the float32 one, with a threshold of its own scores."""
    lowered = lower(exact.model, lowering, name, judges.all, training_images, progress)
    with OnnxRuntimeSession(exact.model) as reference, OnnxRuntimeSession(lowered.model) as built:
        progress(f"setting the threshold again, and checking that {lowering.precision} decides as fp32")
        threshold = judges.threshold(built)
        limits = BUDGETS[lowering.precision].limits(exact.threshold.value, len(judges.all))
        agreement = verify(
            reference, built, judges.all, exact.threshold.value, limits, built_threshold=threshold.value
        )
    verification = {
        "reference": "onnxruntime fp32",
        "reference_threshold": exact.threshold.value,
        **asdict(agreement),
        "limits": asdict(limits),
    }
    if lowered.cache is None:
        return _Built(lowered.model, threshold, verification, files={})
    return _Built(
        lowered.model,
        threshold,
        {**verification, "calibration": lowered.calibration},
        files={"calibration.json": lowered.cache.encode()},
    )


def _exported(run: TrainedRun) -> bytes:
    try:
        from edgead.export.from_torch import onnx_from_method
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "edgead build") from error
    content: bytes = onnx_from_method(run.load_model(), run.size).SerializeToString()
    return content


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), _BATCH)
    return np.concatenate([session.infer(images[start : start + _BATCH]).anomaly_score for start in batches])
