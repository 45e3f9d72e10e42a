"""From a training run to a bundle: export, set the threshold, prove that it decides as the model did, write.

Nothing is written before everything has been checked, and then all of it at once: a build that fails or is
killed leaves the bundle that was there before as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgead.bundle import Bundle, Manifest, check_target
from edgead.data import LoadedPictures
from edgead.engine.lower import Lowering
from edgead.engine.verified import Judges, VerifiedGraph, install, picture_hash, verified_lower
from edgead.engine.verify import EXACT, verify
from edgead.errors import needs_extra
from edgead.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.threshold import threshold_from_normal_scores
from edgead.types import UInt8Array

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod


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
    judges = Judges(run.holdout_pictures().images, false_alarm_rate, confidence)
    progress(f"exporting {run.method_name} with {run.teacher_name} at {run.size} to ONNX")
    built = _exact(run, _exported(run), judges, progress)
    if lowering.precision != "fp32":

        def training_images(count: int) -> UInt8Array:
            return run.training_pictures(count).images

        built = verified_lower(built, lowering, target.name, judges, training_images, progress)
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
    progress(f"writing {target}")
    return install(target, manifest, built, judges)


def _exact(run: TrainedRun, model: bytes, judges: Judges, progress: Callable[[str], None]) -> VerifiedGraph:
    """The float32 graph, verified against the trained model."""
    with run.session() as reference, OnnxRuntimeSession(model, size=run.size) as built:
        progress(f"setting the threshold on {len(judges.good)} held-out good pictures")
        # The threshold is the score of one of these pictures, so the last bit of it would decide on that
        # picture. With the larger of its two scores each picture is on the same side for the model and for
        # what was built from it.
        threshold = judges.threshold(reference, built)
        progress("checking that the graph decides as the model")
        agreement = verify(reference, built, judges.all, threshold.value)
    verification = {
        "reference": "torch",
        **asdict(agreement),
        "limits": asdict(EXACT),
        # So that a bundle of lower precision can be built from this one with the same judges.
        "judges": [picture_hash(image) for image in judges.good],
    }
    return VerifiedGraph(model, threshold, verification, files={})


def _exported(run: TrainedRun) -> bytes:
    with needs_extra("train", "edgead build"):
        from edgead.export.from_torch import onnx_from_method
    content: bytes = onnx_from_method(run.load_model(), run.size).SerializeToString()
    return content
