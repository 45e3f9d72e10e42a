"""Builds a bundle from a training run: export, threshold, verification against the trained model, writing.

Nothing is written until every check has passed. Then the bundle is written whole. A build that fails or is killed
leaves an existing bundle unchanged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgead.bundle import Bundle, check_out
from edgead.bundle.manifest import check_recorded_images
from edgead.data import LoadedImages
from edgead.engine.calibration_images import calibration_rows
from edgead.engine.candidate import half_beside_int8
from edgead.engine.candidate_precisions import fastest_within_tolerance
from edgead.engine.fidelity import exact_limits, judgement
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import PrecisionConverter
from edgead.engine.refusal import verify
from edgead.engine.validation_images import ValidationImages
from edgead.engine.write import Built, ModelDetails, answers, install
from edgead.errors import needs_extra
from edgead.files.cache import temporary_directory
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import View
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession

if TYPE_CHECKING:
    from edgead.models.base import DistillationMethod

_log = logging.getLogger(__name__)


class TrainedRun(Protocol):
    """Interface of a finished training run; `edgead.training.run.open_run` returns one."""

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
        """Size of the images that the model takes."""
        ...

    @property
    def bit_depth(self) -> int | None:
        """Depth of the values of image files with samples of 16 bits; None for the depth of the files."""
        ...

    @property
    def view(self) -> View:
        """Part of an image that the model inspects, and the way to its size."""
        ...

    @property
    def false_alarm_rate(self) -> float:
        """Share of good parts that the threshold of the run may call defective."""
        ...

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of the training, JSON values only."""
        ...

    def load_model(self) -> DistillationMethod:
        """Load the trained method in evaluation mode."""
        ...

    def session(self) -> Session:
        """Open the trained method as a session, which is the reference of the verification."""
        ...

    def holdout_images(self) -> Mapping[str, LoadedImages]:
        """Load the good images that set the threshold, by part. They are held out or cross-fitted."""
        ...

    @property
    def score_ratios(self) -> Mapping[str, Sequence[float]]:
        """Ratios of cross-fitted scores to scores of the model, in the order of `holdout_images`, by part.

        Parts with held-out images are left out. See `edgead.scoring.cross_fitting`.
        """
        ...

    def training_images(self, count: int) -> LoadedImages:
        """Load good images that the run was trained on, the same number for each part.

        Args:
            count: Approximate number of images over all parts.
        """
        ...

    def labelled_images(self) -> Mapping[str, LoadedImages]:
        """Load the labelled test images, by part; parts without labels are left out."""
        ...


def build_bundle(run: TrainedRun, out: Path, plan: Plan | None = None) -> Bundle:
    """Build the bundle of a run.

    The float32 graph is always verified against torch. It is then the reference for the graph or engine that is built
    from it. The steps are logged.

    Args:
        run: Finished training run.
        out: Directory to write. An existing bundle there is replaced.
        plan: Target, precisions and options of the build; by default float32 for ONNX Runtime.

    Returns:
        The bundle, opened.

    Raises:
        InputError: If the directory holds anything other than a bundle.
        VerificationError: If the result does not make the decisions of its reference.
        MissingExtraError: If the training packages are missing.
        EdgeadError: Any error that `fastest_within_tolerance` or the run raises.
    """
    began_s = time.monotonic()
    plan = Plan() if plan is None else plan
    # Checked now, so that a wrong directory is rejected before minutes of exporting.
    check_out(out)
    validation_images = _validation_images(run, plan)
    check_recorded_images(sum(of_part.count for of_part in validation_images.values()))
    model = onnx_from_run(run)
    exact = _exact(run, model, validation_images)
    graphs = PrecisionConverter(
        model,
        plan.calibrating,
        out.name,
        np.concatenate([of_part.all for of_part in validation_images.values()]),
        lambda count: calibration_rows(run.training_images(count), count),
        half_beside_int8(plan),
    )
    details = ModelDetails(run.size, run.method_name, run.teacher_name, run.summary, run.bit_depth, run.view)
    with temporary_directory() as directory:
        built = fastest_within_tolerance(exact, validation_images, graphs, plan, run.size, directory, began_s)
        return install(out, built, details, plan.target.backend, plan.target_name)


def onnx_from_run(run: TrainedRun) -> bytes:
    """Export a run.

    Args:
        run: Finished training run.

    Returns:
        Content of an ONNX file.

    Raises:
        MissingExtraError: If the training packages are missing.
    """
    _log.info("exporting %s with %s at %s to ONNX", run.method_name, run.teacher_name, run.size)
    with needs_extra("train", "edgead build"):
        from edgead.export.from_torch import onnx_from_method
        from edgead.export.head.model_file import file_from_graph
    return file_from_graph(onnx_from_method(run.load_model(), run.size))


def _validation_images(run: TrainedRun, plan: Plan) -> dict[str, ValidationImages]:
    """Load the validation images of a run, by part."""
    good, labelled, ratios = run.holdout_images(), run.labelled_images(), run.score_ratios
    rate, confidence = plan.rate_and_confidence(run.false_alarm_rate)
    return {
        part: ValidationImages(loaded, labelled.get(part), rate, confidence, ratios.get(part))
        for part, loaded in good.items()
    }


def _exact(run: TrainedRun, model: bytes, validation_images: Mapping[str, ValidationImages]) -> Built:
    """Verify the float32 graph against the trained model, or raise VerificationError."""
    with run.session() as reference, OnnxRuntimeSession(model, size=run.size) as session:
        count = sum(of_part.count for of_part in validation_images.values())
        _log.info("setting the threshold on %d good images", count)
        # The threshold is the score of one of these images, so rounding in the last bit would decide on that image.
        # The larger of the two scores puts each image on the same side for the model and for the graph.
        scores = {part: of_part.scores(reference, session) for part, of_part in validation_images.items()}
        thresholds = {part: of_part.threshold(scores[part]) for part, of_part in validation_images.items()}
        _log.info("checking that the graph decides as the model")
        parts = {}
        for part, of_part in validation_images.items():
            level, named = thresholds[part].value, part if len(validation_images) > 1 else None
            comparison = verify(reference, session, of_part.all, level, part=named)
            parts[part] = {
                **judgement(comparison, exact_limits(level)),
                **of_part.record(scores[part]),
            }
        golden = answers(session, validation_images)
    verification = {"reference": "torch", "parts": parts}
    return Built(model, "fp32", thresholds, verification, golden, files={}, verified=True)
