"""From a training run to a bundle: export, set the threshold, prove that it decides as the model did, write.

Nothing is written before everything has been checked, and then all of it at once: a build that fails or is
killed leaves the bundle that was there before as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from edgead.bundle import Bundle, check_target
from edgead.data import LoadedPictures
from edgead.engine.fidelity import exact_limits, judgement, verify
from edgead.engine.plan import Plan
from edgead.engine.verified_build import Built, Judges, answers, build_verified, install
from edgead.errors import needs_extra
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.types import UInt8Array

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod


class TrainedRun(Protocol):
    """What is asked of a training run; `edgead.training.run.open_run` gives one."""

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

    def holdout_pictures(self) -> Mapping[str, LoadedPictures]:
        """Good pictures that the run was not trained on, by part."""
        ...

    def training_pictures(self, count: int) -> LoadedPictures:
        """About so many good pictures that the run was trained on, as many of one part as of another."""
        ...

    def labelled_pictures(self) -> Mapping[str, LoadedPictures]:
        """Test pictures with labels, by part; parts without are left out."""
        ...


def build_bundle(
    run: TrainedRun, target: Path, plan: Plan | None = None, progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Build the bundle of a run, and return it opened.

    target: the directory to write, in place of the bundle that may be there. plan: what is asked; float32 for ONNX
    Runtime where it is left out. progress: called with a line before each step. The float32 graph is verified against
    torch in any case, and is the reference of what is built from it, which has a threshold of its own scores.

    Raises InputError for a target that holds something else, VerificationError when what was built does not decide as
    its reference, MissingExtraError without the training packages, what `build_verified` raises and what the run
    raises.
    """
    plan = Plan() if plan is None else plan
    # A bad place is refused now, not after minutes of exporting.
    check_target(target)
    held_out, labelled = run.holdout_pictures(), run.labelled_pictures()
    judges = {
        part: Judges(pictures.images, labelled.get(part), plan.false_alarm_rate, plan.confidence)
        for part, pictures in held_out.items()
    }
    progress(f"exporting {run.method_name} with {run.teacher_name} at {run.size} to ONNX")
    exact = _exact(run, onnx_from_run(run), judges, progress)

    def training_images(count: int) -> UInt8Array:
        return run.training_pictures(count).images

    with TemporaryDirectory(prefix="edgead-") as directory:
        built = build_verified(
            exact, judges, plan, target.name, training_images, run.size, Path(directory), progress
        )
        progress(f"writing {target}")
        return install(target, built, plan, run.size, run.method_name, run.teacher_name, run.summary)


def onnx_from_run(run: TrainedRun) -> bytes:
    """Export a run as the content of an ONNX file; MissingExtraError without the training packages."""
    with needs_extra("train", "edgead build"):
        from edgead.export.from_torch import onnx_from_method
    content: bytes = onnx_from_method(run.load_model(), run.size).SerializeToString()
    return content


def _exact(
    run: TrainedRun, model: bytes, judges: Mapping[str, Judges], progress: Callable[[str], None]
) -> Built:
    """The float32 graph, verified against the trained model."""
    with run.session() as reference, OnnxRuntimeSession(model, size=run.size) as session:
        held_out = sum(len(of_part.good) for of_part in judges.values())
        progress(f"setting the threshold on {held_out} held-out good pictures")
        # The threshold is the score of one of these pictures, so the last bit of it would decide on that
        # picture. With the larger of its two scores each picture is on the same side for the model and for
        # what was built from it.
        thresholds = {part: of_part.threshold(reference, session) for part, of_part in judges.items()}
        progress("checking that the graph decides as the model")
        parts = {}
        for part, of_part in judges.items():
            level, named = thresholds[part].value, part if len(judges) > 1 else None
            comparison = verify(reference, session, of_part.all, level, part=named)
            parts[part] = {
                **judgement(comparison, exact_limits(level)),
                # So that another bundle can be built from this one with the same judges.
                "judges": of_part.hashes(),
            }
        golden = answers(session, judges)
    verification = {"reference": "torch", "parts": parts}
    return Built(model, "fp32", thresholds, verification, golden, files={}, verified=True)
