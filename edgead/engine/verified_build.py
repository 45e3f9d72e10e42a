"""What every build goes through, from a run or from a bundle: judges, rungs to try, a bundle that is written.

The judges are good pictures that no training and no calibration has seen, and a damaged twin of each. They set
the threshold, and they compare what was built with its reference, the float32 graph. A model of several parts has
judges of each: every part has its own threshold and its own budgets, as if it were alone. The rungs are tried in turn
and the first that is within its budgets is kept; where none is, nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.bundle.golden import GOLDEN_PAIRS, Golden, chart_from_image, golden_bytes, pixels_from_chart
from edgead.data import LoadedPictures
from edgead.data.pseudo_anomalies.cutpaste import damaged_twins
from edgead.engine.candidate import Candidate, open_candidate
from edgead.engine.fidelity import Comparison, Limits, Precision, described, judgement, require_each
from edgead.engine.plan import Plan
from edgead.engine.precision_converter import Lowered, LowerPrecisions
from edgead.errors import PrecisionError, VerificationError
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.agreement import BATCH, compare_sessions
from edgead.runtime.base import Session
from edgead.runtime.environment import this_environment
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.scoring import metrics
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, UInt8Array

_MEND = (
    "build with --precision auto or a higher one, or int8 with another --calibrate-on or --algorithm or with "
    "--quantize student"
)


class Judges:
    """The pictures of one part that set its threshold and judge what was built.

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
        """Of the larger of the scores that these sessions give each good picture, in the batches it is compared in."""
        scores = np.max([_scores(session, self.all)[: len(self.good)] for session in sessions], axis=0)
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

    def hashes(self) -> list[str]:
        """The names that a bundle knows the good pictures by."""
        return [picture_hash(image) for image in self.good]


@dataclass(frozen=True, slots=True)
class Built:
    """What goes into a bundle.

    model: content of the ONNX file. thresholds: by part. verification: what was compared and what was allowed, JSON
    values. golden: pictures and answers. files: others, by name. verified: whether what runs on the target was judged,
    and not the graph in its place.
    """

    model: bytes
    precision: Precision
    thresholds: Mapping[str, Threshold]
    verification: Mapping[str, Any]
    golden: Golden
    files: Mapping[str, Path | bytes]
    verified: bool


def build_verified(
    exact: Built,
    judges: Mapping[str, Judges],
    plan: Plan,
    name: str,
    training_images: Callable[[int], UInt8Array],
    size: ModelSize,
    directory: Path,
    progress: Callable[[str], None],
) -> Built:
    """Try the rungs of a plan in turn and return the first that decides as the float32 graph.

    exact: that graph, verified, on ONNX Runtime. judges: by part. name: of the bundle. training_images: see
    `LowerPrecisions`. directory: for engines; it must live until the result is installed. Raises VerificationError when
    none is within its budgets, PrecisionError, BackendError and DataError as they occur; of several rungs, one that the
    graph cannot be converted to is passed over, and told in the result.
    """
    watched = np.concatenate([of_part.all for of_part in judges.values()])
    graphs = LowerPrecisions(exact.model, plan.calibrating, name, watched, training_images, progress)
    tried: list[dict[str, Any]] = []
    with OnnxRuntimeSession(exact.model, size=size) as reference:
        reference_aurocs = {part: of_part.auroc(reference) for part, of_part in judges.items()}
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
                built, compared = _judged(
                    exact, lowered, candidate, judges, plan, reference, reference_aurocs
                )
            over = [part for part, (comparison, limits) in compared.items() if not comparison.holds(limits)]
            measures = {part: comparison.measures() for part, (comparison, _) in compared.items()}
            tried.append({"rung": rung, "holds": not over, "parts": measures})
            if not over:
                return _with_ladder(built, rung, tried, plan)
            if len(plan.rungs) == 1:
                require_each(compared, _MEND)
            where = f" for {over[0]}" if len(compared) > 1 else ""
            progress(f"{rung} is over budget{where}: {described(*compared[over[0]])}")
    raise VerificationError(
        f"none of {', '.join(plan.rungs)} decides as the model within the budgets of target {plan.recipe_name!r}; "
        "nothing was written: train again, or give a --target FILE.toml with other budgets"
    )


def _judged(
    exact: Built,
    lowered: Lowered,
    candidate: Candidate,
    judges: Mapping[str, Judges],
    plan: Plan,
    reference: Session,
    reference_aurocs: Mapping[str, float | None],
) -> tuple[Built, dict[str, tuple[Comparison, Limits]]]:
    """One candidate beside the reference: how far they are apart on each part, and how far they may be."""
    session = candidate.session
    thresholds = {part: of_part.threshold(session) for part, of_part in judges.items()}
    compared = {}
    for part, of_part in judges.items():
        level, reference_auroc = exact.thresholds[part].value, reference_aurocs[part]
        compared[part] = (
            Comparison(
                compare_sessions(
                    reference, session, of_part.all, level, other_threshold=thresholds[part].value
                ),
                reference_auroc,
                None if reference_auroc is None else of_part.auroc(session),
            ),
            plan.recipe.budgets.of(lowered.precision).limits(len(of_part.all)),
        )
    verification = {
        "reference": "onnxruntime fp32",
        "parts": {
            part: {
                "reference_threshold": exact.thresholds[part].value,
                **judgement(*compared[part]),
                "judges": of_part.hashes(),
            }
            for part, of_part in judges.items()
        },
        **lowered.details,
    }
    files = dict(candidate.files)
    if lowered.cache is not None:
        files["calibration.json"] = lowered.cache.encode()
    built = Built(
        lowered.model,
        lowered.precision,
        thresholds,
        verification,
        answers(session, judges),
        files,
        candidate.verified,
    )
    return built, compared


def _with_ladder(built: Built, rung: str, tried: list[dict[str, Any]], plan: Plan) -> Built:
    """With what each rung gave, where there was more than one to try."""
    if len(plan.rungs) == 1:
        return built
    return replace(built, verification={**built.verification, "rung": rung, "ladder": tried})


def answers(session: Session, judges: Mapping[str, Judges]) -> Golden:
    """Give what a session says of the golden images: the first good ones of each part, their twins, and the chart."""
    pairs = max(1, GOLDEN_PAIRS // len(judges))
    images: list[UInt8Array] = []
    parts: list[int] = []
    for number, of_part in enumerate(judges.values()):
        images += [*of_part.good[:pairs], *of_part.twins[:pairs]]
        parts += [number] * (len(images) - len(parts))
    chart = chart_from_image(images[0])
    batch = np.stack([*images, pixels_from_chart(chart, ModelSize(*images[0].shape[:2]))])
    found = [session.infer(batch[start : start + BATCH]) for start in range(0, len(batch), BATCH)]
    return Golden(
        images=batch,
        anomaly_map=np.concatenate([prediction.anomaly_map for prediction in found]),
        anomaly_score=np.concatenate([prediction.anomaly_score for prediction in found]),
        # The chart is made of an image of the first part, and is compared with the threshold of that part.
        part=np.array([*parts, 0], np.uint8),
        chart=chart,
    )


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
        thresholds=built.thresholds,
        training=training,
        verification=built.verification,
        verified=built.verified,
        verified_on=this_environment(
            backend=plan.recipe.backend if built.verified else "onnxruntime"
        ).to_json(),
    )
    files = {"model.onnx": built.model, "golden.npz": golden_bytes(built.golden), **built.files}
    return write_bundle(target, manifest, files)


def picture_hash(image: UInt8Array) -> str:
    """What a bundle knows a held-out picture by: half of the SHA-256, in hex, of its pixels at the model's size."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), BATCH)
    return np.concatenate([session.infer(images[start : start + BATCH]).anomaly_score for start in batches])
