"""What every build goes through, from a run or from a bundle: judges, rungs to try, a bundle that is written.

The judges are good pictures that no training and no calibration has seen, and a damaged twin of each. They set
the threshold, and they compare what was built with its reference, the float32 graph. The rungs are tried in turn and
the first that is within its budget is kept; where none is, nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead import metrics
from edgead.agreement import compare_sessions
from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.data import LoadedPictures
from edgead.engine.candidate import Candidate, open_candidate
from edgead.engine.lower import Lowered, LowerPrecisions
from edgead.engine.plan import Plan
from edgead.engine.verify import Comparison, Limits, Precision, damaged_twins, described, require
from edgead.errors import PrecisionError, VerificationError
from edgead.golden import Golden, golden_bytes
from edgead.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, UInt8Array

GOLDEN_PAIRS = 4
"""Good pictures, and as many damaged twins, that a bundle carries with its own answers to them."""

_BATCH = 8
_MEND = (
    "build with --precision auto or a higher one, or int8 with another --calibrate-on or --algorithm or with "
    "--quantize student"
)


class Judges:
    """The pictures that set thresholds and judge what was built.

    good: (N, H, W, 3) uint8 RGB, held out. twins: as many, damaged. all: both. labelled: test pictures of which some
    are good and some are defects; they compare AUROCs and choose nothing but whether a graph is within its budget.
    """

    def __init__(
        self, good: UInt8Array, labelled: LoadedPictures | None, false_alarm_rate: float, confidence: float
    ) -> None:
        self.good, self.twins = good, damaged_twins(good)
        self.all = np.concatenate([self.good, self.twins])
        self._labelled = labelled
        self._false_alarm_rate, self._confidence = false_alarm_rate, confidence

    def threshold(self, *sessions: Session) -> Threshold:
        """Of the larger of the scores that these sessions give each good picture."""
        scores = np.max([_scores(session, self.good) for session in sessions], axis=0)
        return threshold_from_normal_scores(scores, self._false_alarm_rate, self._confidence)

    def auroc(self, session: Session) -> float | None:
        """Image AUROC on the labelled pictures, None where there are not both kinds."""
        if self._labelled is None:
            return None
        labels = np.array([sample.label for sample in self._labelled.samples])
        known = (labels == 0) | (labels == 1)
        if len(set(labels[known])) < 2:
            return None
        scores = _scores(session, self._labelled.images[known])
        return metrics.auroc(scores, labels[known] == 1) if np.isfinite(scores).all() else 0.0

    def examples(self) -> UInt8Array:
        """The first good pictures and their twins, which a bundle carries."""
        return np.concatenate([self.good[:GOLDEN_PAIRS], self.twins[:GOLDEN_PAIRS]])

    def hashes(self) -> list[str]:
        """The names that a bundle knows the good pictures by."""
        return [picture_hash(image) for image in self.good]


@dataclass(frozen=True, slots=True)
class Built:
    """What goes into a bundle.

    model: content of the ONNX file. verification: what was compared and what was allowed, JSON values. golden: pictures
    and answers. files: others, by name. verified: whether what runs on the target was judged, and not the graph in its
    place.
    """

    model: bytes
    precision: Precision
    threshold: Threshold
    verification: Mapping[str, Any]
    golden: Golden
    files: Mapping[str, Path | bytes]
    verified: bool


def build_verified(
    exact: Built,
    judges: Judges,
    plan: Plan,
    name: str,
    training_images: Callable[[int], UInt8Array],
    size: ModelSize,
    directory: Path,
    progress: Callable[[str], None],
) -> Built:
    """Try the rungs of a plan in turn and return the first that decides as the float32 graph.

    exact: that graph, verified, on ONNX Runtime. name: of the bundle. training_images: see `LowerPrecisions`.
    directory: for engines; it must live until the result is installed. Raises VerificationError when none is within its
    budget, PrecisionError, BackendError and DataError as they occur; of several rungs, one that the graph cannot be
    converted to is passed over, and told in the result.
    """
    graphs = LowerPrecisions(exact.model, plan.calibrating, name, judges.all, training_images, progress)
    tried: list[dict[str, Any]] = []
    with OnnxRuntimeSession(exact.model, size=size) as reference:
        reference_auroc = judges.auroc(reference)
        for rung in plan.rungs:
            if rung == "fp32" and plan.recipe.backend == "onnxruntime":
                return _with_ladder(exact, rung, tried, plan)
            progress(f"building {rung} for {plan.recipe_name}")
            try:
                lowered = graphs.graph(rung)
            except PrecisionError as error:
                if len(plan.rungs) == 1:
                    raise
                tried.append({"rung": rung, "holds": False, "error": str(error)})
                continue
            with open_candidate(lowered, plan, size, directory, progress) as candidate:
                progress(f"setting the threshold again, and checking that {rung} decides as fp32")
                built, comparison, limits = _judged(
                    exact, lowered, candidate, judges, plan, reference, reference_auroc
                )
            tried.append({"rung": rung, "holds": comparison.holds(limits), **comparison.measures()})
            if comparison.holds(limits):
                return _with_ladder(built, rung, tried, plan)
            if len(plan.rungs) == 1:
                require(comparison, limits, _MEND)
            progress(f"{rung} is over budget: {described(comparison, limits)}")
    raise VerificationError(
        f"none of {', '.join(plan.rungs)} decides as the model within the budgets of recipe {plan.recipe_name!r}; "
        "nothing was written: train again, or give a recipe with other budgets"
    )


def _judged(
    exact: Built,
    lowered: Lowered,
    candidate: Candidate,
    judges: Judges,
    plan: Plan,
    reference: Session,
    reference_auroc: float | None,
) -> tuple[Built, Comparison, Limits]:
    """One candidate beside the reference."""
    session = candidate.session
    threshold = judges.threshold(session)
    limits = plan.recipe.budgets.of(lowered.precision).limits(exact.threshold.value, len(judges.all))
    comparison = Comparison(
        compare_sessions(
            reference, session, judges.all, exact.threshold.value, other_threshold=threshold.value
        ),
        reference_auroc,
        None if reference_auroc is None else judges.auroc(session),
    )
    verification = {
        "reference": "onnxruntime fp32",
        "reference_threshold": exact.threshold.value,
        **comparison.measures(),
        "limits": asdict(limits),
        "judges": judges.hashes(),
        **lowered.details,
    }
    files = dict(candidate.files)
    if lowered.cache is not None:
        files["calibration.json"] = lowered.cache.encode()
    built = Built(
        lowered.model,
        lowered.precision,
        threshold,
        verification,
        answers(session, judges.examples()),
        files,
        candidate.verified,
    )
    return built, comparison, limits


def _with_ladder(built: Built, rung: str, tried: list[dict[str, Any]], plan: Plan) -> Built:
    """With what each rung gave, where there was more than one to try."""
    if len(plan.rungs) == 1:
        return built
    return replace(built, verification={**built.verification, "rung": rung, "ladder": tried})


def answers(session: Session, examples: UInt8Array) -> Golden:
    """What a session says of pictures, (N, H, W, 3) uint8 RGB."""
    prediction = session.infer(examples)
    return Golden(examples, prediction.anomaly_map, prediction.anomaly_score)


def install(
    target: Path,
    built: Built,
    plan: Plan,
    size: ModelSize,
    method: str,
    teacher: str,
    training: Mapping[str, Any],
) -> Bundle:
    """Write the bundle of what was built; see `write_bundle`."""
    manifest = Manifest(
        method=method,
        teacher=teacher,
        backend=plan.recipe.backend,
        recipe=plan.recipe_name,
        precision=built.precision,
        size=size,
        threshold=built.threshold,
        training=training,
        verification=built.verification,
        verified=built.verified,
    )
    files = {"model.onnx": built.model, "golden.npz": golden_bytes(built.golden), **built.files}
    return write_bundle(target, manifest, files)


def picture_hash(image: UInt8Array) -> str:
    """What a bundle knows a held-out picture by: half of the SHA-256, in hex, of its pixels at the model's size."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), _BATCH)
    return np.concatenate([session.infer(images[start : start + _BATCH]).anomaly_score for start in batches])
