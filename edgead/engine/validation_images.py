"""The images that set the threshold of a part and judge what was built: its validation set.

They are good images that no training and no calibration has seen, and a synthetic defect made of each. A model of
several parts has such images of each part: every part has its own threshold, as if it were alone.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgead.data import LoadedImages
from edgead.data.pseudo_anomalies.cutpaste import synthetic_defects
from edgead.runtime.agreement import BATCH
from edgead.runtime.base import Session
from edgead.scoring import metrics
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, UInt8Array


class ValidationImages:
    """The validation images of one part.

    Args:
        good: Held-out good images, (N, H, W, 3) uint8 RGB at the model's size, N >= 1.
        labelled: Test images of which some are good and some are defects, or None. They compare AUROCs only.
        false_alarm_rate: Share of good parts that may be called defective, see `edgead.scoring.threshold`.
        confidence: Confidence that this share is kept, from 0 to 1.

    Attributes:
        good: The good images, as given.
        defects: A synthetic defect of each good image, in the same order; same shape and type.
        all: Good images, then synthetic defects: (2N, H, W, 3) uint8 RGB.
    """

    def __init__(
        self, good: UInt8Array, labelled: LoadedImages | None, false_alarm_rate: float, confidence: float
    ) -> None:
        self.good, self.defects = good, synthetic_defects(good)
        self.all = np.concatenate([self.good, self.defects])
        self._labelled = labelled
        self._false_alarm_rate, self._confidence = false_alarm_rate, confidence

    def threshold(self, *sessions: Session) -> Threshold:
        """Set the threshold from the scores of the good images.

        Args:
            *sessions: Sessions that must agree on it. Each image counts with the larger of their scores, in the batches
                that it is compared in.

        Returns:
            The threshold, an order statistic of these scores.
        """
        scores = np.max([_scores(session, self.all)[: len(self.good)] for session in sessions], axis=0)
        return threshold_from_normal_scores(scores, self._false_alarm_rate, self._confidence)

    def auroc(self, session: Session) -> float | None:
        """Compute the image AUROC on the labelled images.

        Args:
            session: Session that scores them.

        Returns:
            The AUROC, 0.0 if a score is not finite, None if there are not both good images and defects.
        """
        if self._labelled is None:
            return None
        labels = np.array([sample.label for sample in self._labelled.samples])
        known = (labels == 0) | (labels == 1)
        if len(set(labels[known])) < 2:
            return None
        scores = _scores(session, self._labelled.images[known])
        return metrics.auroc(scores, labels[known] == 1) if np.isfinite(scores).all() else 0.0

    def hashes(self) -> list[str]:
        """Return the IDs of the good images in a bundle, see `image_hash`."""
        return [image_hash(image) for image in self.good]


def image_hash(image: UInt8Array) -> str:
    """Compute the ID of a held-out image: the first 128 bits of the SHA-256 of its pixels, in hex.

    Args:
        image: Image at the model's size, (H, W, 3) uint8 RGB.
    """
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _scores(session: Session, images: UInt8Array) -> Float32Array:
    batches = range(0, len(images), BATCH)
    return np.concatenate([session.infer(images[start : start + BATCH]).anomaly_score for start in batches])
