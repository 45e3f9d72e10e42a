"""Validation images of a part, which set its threshold and verify what was built.

They are good images that neither the training nor the calibration has used, or cross-fitted ones, and a synthetic
defect made from each. A model of several parts has validation images of each part, because every part has its own
threshold.

The model was trained on cross-fitted images, so their scores are too low. For the threshold each is multiplied by the
ratio that the training has measured. The comparison with the reference takes the scores as they are: it measures the
difference of two graphs, which does not depend on what the model was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.data import LoadedImages
from edgead.data.images import image_hash
from edgead.data.pseudo_anomalies.rectangles import synthetic_defects
from edgead.imaging.image_statistics import IMAGE_STATISTICS, mean_statistics
from edgead.runtime.base import Session
from edgead.runtime.framed import BATCH, infer_images, infer_rows, join_rows
from edgead.scoring import metrics
from edgead.scoring.cross_fitting import check_ratios
from edgead.scoring.threshold import Threshold, threshold_from_normal_scores
from edgead.types import Float32Array, Float64Array

COMPARED_ROWS = 128
"""Number of tiles, or of images that the memory does not hold, on which a graph is compared with its reference."""


class ValidationImages:
    """The validation images of one part.

    Args:
        loaded: Good images, at the model's size, one or more.
        labelled: Test images, good ones and defects, or None. They are only used for the AUROC.
        false_alarm_rate: Share of good parts that may be called defective, see `edgead.scoring.threshold`.
        confidence: Confidence that this share is not exceeded, from 0 to 1.
        ratios: Ratio of the cross-fitted score and the score of the model for each good image, (N,); None if the model
            was not trained on them.

    Attributes:
        good: Good images, (N, H, W, 3) uint8 RGB. Of images in tiles, some tiles of all images; of images that the
            memory does not hold, some of them.
        defects: Synthetic defect of each in the same order, (N, H, W, 3) uint8 RGB.
        all: Good images, then synthetic defects, (2N, H, W, 3) uint8 RGB.
        count: Number of good images that set the threshold.
    """

    def __init__(
        self,
        loaded: LoadedImages,
        labelled: LoadedImages | None,
        false_alarm_rate: float,
        confidence: float,
        ratios: Sequence[float] | None = None,
    ) -> None:
        self.count = len(loaded.samples)
        if ratios is not None:
            check_ratios(ratios, self.count)
        # Each image by itself, unless there are too many rows to keep and to score with two sessions.
        self._is_plain = len(loaded.images) == self.count and isinstance(loaded.images, np.ndarray)
        rows = loaded.images if self._is_plain else loaded.images[_spread(len(loaded.images))]
        self.good = np.asarray(rows)
        self.defects = synthetic_defects(self.good)
        self.all = np.concatenate([self.good, self.defects])
        self._loaded, self._labelled = loaded, labelled
        self._false_alarm_rate, self._confidence = false_alarm_rate, confidence
        self._ratios = None if ratios is None else list(ratios)

    def scores(self, *sessions: Session) -> Float64Array:
        """Score the good images through their view, as if the model were not trained on them.

        Args:
            *sessions: Sessions that share a threshold. Each image counts with the larger of their scores. The
                batches are the same as in the comparison, because a score can depend on its batch in the last bit.

        Returns:
            Scores in their order, (N,) float64, multiplied by the ratios if there are any.
        """
        found: Float64Array = np.max([self._scores(session) for session in sessions], axis=0).astype(
            np.float64
        )
        return found if self._ratios is None else found * self._ratios

    def _scores(self, session: Session) -> Float32Array:
        if not self._is_plain:
            return scores_of(session, self._loaded, range(self.count))
        found = infer_rows(session, self.all)
        if not self._loaded.framings:
            return found.anomaly_score[: self.count]
        return np.array([score for score, _ in join_rows(self._loaded.framings, found)], np.float32)

    def threshold(self, scores: Float64Array) -> Threshold:
        """Set the threshold from the scores of the good images.

        Args:
            scores: Result of `scores`.

        Returns:
            The threshold, an order statistic of these scores.
        """
        return threshold_from_normal_scores(scores, self._false_alarm_rate, self._confidence)

    def record(self, scores: Float64Array) -> dict[str, Any]:
        """Return what a bundle records of the good images.

        A build from the bundle finds the same images by their IDs, and `edgead threshold` joins the scores of new
        images to theirs.

        Args:
            scores: Result of `scores`.

        Returns:
            JSON values: `validation_images`, the IDs, and in the same order `validation_scores`, the statistics of the
            images, and `validation_ratios` if the images are cross-fitted.
        """
        images = [self._loaded.rows(number) for number in range(self.count)]
        measured = [mean_statistics(rows) for rows in images]
        ratios = {} if self._ratios is None else {"validation_ratios": self._ratios}
        return {
            "validation_images": [image_hash(rows) for rows in images],
            "validation_scores": [float(score) for score in scores],
            **{f"validation_{name}": [_rounded(one[name]) for one in measured] for name in IMAGE_STATISTICS},
            **ratios,
        }

    def auroc(self, session: Session) -> float | None:
        """Compute the image AUROC on the labelled images.

        Args:
            session: Session that scores the images.

        Returns:
            The AUROC, 0.0 if a score is not finite, or None if there are no good images or no defects.
        """
        if self._labelled is None:
            return None
        labels = np.array([sample.label for sample in self._labelled.samples])
        known = (labels == 0) | (labels == 1)
        if len(set(labels[known])) < 2:
            return None
        scores = scores_of(session, self._labelled, np.flatnonzero(known).tolist())
        return metrics.auroc(scores, labels[known] == 1) if np.isfinite(scores).all() else 0.0


def _rounded(value: float | None) -> float | None:
    """Round to six digits, because a manifest may list thousands of images."""
    return None if value is None else float(f"{value:.6g}")


def scores_of(session: Session, loaded: LoadedImages, numbers: Sequence[int]) -> Float32Array:
    """Score some of the images, through their view.

    Args:
        session: Session of the model.
        loaded: Images.
        numbers: Numbers of the images to score, M of them.

    Returns:
        Scores, (M,) float32.
    """
    scores: list[np.float32] = []
    for start in range(0, len(numbers), BATCH):
        some = numbers[start : start + BATCH]
        if not loaded.framings:
            scores += infer_rows(
                session, np.concatenate([loaded.rows(number) for number in some])
            ).anomaly_score.tolist()
            continue
        images = [(loaded.framings[number], loaded.rows(number)) for number in some]
        scores += [score for score, _ in infer_images(session, images)]
    return np.array(scores, np.float32)


def _spread(count: int) -> npt.NDArray[np.intp]:
    """Return the numbers of at most `COMPARED_ROWS` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, COMPARED_ROWS)).astype(np.intp))
