"""What every build goes through, from a run or from a bundle: judges, a verified graph, a bundle that is written.

The judges are good pictures that no training and no calibration has seen, and a damaged twin of each. They set
the threshold, and they compare what was built with its reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgead.bundle import Bundle, Manifest, write_bundle
from edgead.engine.lower import Lowering, lower
from edgead.engine.verify import BUDGETS, damaged_twins, verify
from edgead.golden import Golden, golden_bytes
from edgead.runtime.base import Session
from edgead.runtime.onnxruntime import OnnxRuntimeSession
from edgead.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, UInt8Array

GOLDEN_PAIRS = 4
"""Good pictures, and as many damaged twins, that a bundle carries with its own answers to them."""

_BATCH = 8


class Judges:
    """The pictures that set thresholds and judge what was built: good ones held out, and their damaged twins.

    good, twins, all: (N, H, W, 3) uint8 RGB.
    """

    def __init__(self, good: UInt8Array, false_alarm_rate: float, confidence: float) -> None:
        self.good, self.twins = good, damaged_twins(good)
        self.all = np.concatenate([self.good, self.twins])
        self._false_alarm_rate, self._confidence = false_alarm_rate, confidence

    def threshold(self, *sessions: Session) -> Threshold:
        """Of the larger of the scores that these sessions give each good picture."""
        scores = np.max([_scores(session, self.good) for session in sessions], axis=0)
        return threshold_from_normal_scores(scores, self._false_alarm_rate, self._confidence)


@dataclass(frozen=True, slots=True)
class VerifiedGraph:
    """A graph that was verified: what the bundle says of it, and the files it brings beside itself."""

    model: bytes
    threshold: Threshold
    verification: Mapping[str, Any]
    files: Mapping[str, bytes]


def verified_lower(
    exact: VerifiedGraph,
    lowering: Lowering,
    name: str,
    judges: Judges,
    training_images: Callable[[int], UInt8Array],
    progress: Callable[[str], None],
) -> VerifiedGraph:
    """Make a graph of lower precision, verify it against the float32 one, and set a threshold on its own scores.

    name, training_images, progress: see `lower`. Raises VerificationError when it is over budget, and what
    `lower` raises.
    """
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
        return VerifiedGraph(lowered.model, threshold, verification, files={})
    return VerifiedGraph(
        lowered.model,
        threshold,
        {**verification, "calibration": lowered.calibration},
        files={"calibration.json": lowered.cache.encode()},
    )


def install(target: Path, manifest: Manifest, built: VerifiedGraph, judges: Judges) -> Bundle:
    """Write the bundle of a verified graph, with its answers to the first of its judges; see `write_bundle`."""
    examples = np.concatenate([judges.good[:GOLDEN_PAIRS], judges.twins[:GOLDEN_PAIRS]])
    with OnnxRuntimeSession(built.model, size=manifest.size) as session:
        prediction = session.infer(examples)
    golden = Golden(examples, prediction.anomaly_map, prediction.anomaly_score)
    files = {"model.onnx": built.model, "golden.npz": golden_bytes(golden), **built.files}
    return write_bundle(target, manifest, files)


def picture_hash(image: UInt8Array) -> str:
    """What a bundle knows a held-out picture by: half of the SHA-256, in hex, of its pixels at the model's size."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), _BATCH)
    return np.concatenate([session.infer(images[start : start + _BATCH]).anomaly_score for start in batches])
