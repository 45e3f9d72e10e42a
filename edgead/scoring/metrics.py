"""Metrics that measure how well scores and maps separate defects from good, without scikit-learn.

These are metrics of the scores of images; `edgead.scoring.pixel_histogram` has those of pixels. The negatives are
sorted once, and every positive is looked up in them. Scores are neither binned nor sampled, so ties count exactly, as
in scikit-learn. A curve is stored as the corners of its exact polyline, which can bend only at the score of a positive.

Every function raises ValueError if a score is not finite, a label is not 0 or 1, or the shapes differ. If a function
needs both labels and one is absent, the message names it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgead.types import Float64Array

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.bool_ | np.integer[Any]]


def auroc(scores: Scores, labels: Labels) -> float:
    """Compute the area under the ROC curve: the probability that a defect scores above a good sample.

    A tie counts as half.

    Args:
        scores: Anomaly scores of any shape; a higher score is more anomalous.
        labels: Labels of the same shape, int or bool; 1 or True is a defect.

    Returns:
        The area, 0 to 1.

    Raises:
        ValueError: The scores or labels are invalid, or one label is absent.
    """
    good, defect = _split(scores, labels)
    below = np.searchsorted(good, defect, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(good, defect, side="right").sum(dtype=np.int64)
    return float((int(below) + int(not_above)) / (2 * len(good) * len(defect)))


def roc_curve(scores: Scores, labels: Labels) -> tuple[Float64Array, Float64Array]:
    """Compute the corners of the ROC curve.

    Straight lines between the corners form the exact curve. A line is diagonal if good and defect scores tie.

    Args:
        scores: Anomaly scores, as for `auroc`.
        labels: Labels, as for `auroc`.

    Returns:
        False-positive rates and true-positive rates, two float64 arrays of one length. Both rise from 0 to 1.

    Raises:
        ValueError: The scores or labels are invalid, or one label is absent.
    """
    good, defect = _split(scores, labels)
    return _curve(good, defect, np.full(len(defect), 1.0 / len(defect)))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Compute the average precision: the sum over thresholds of the step in recall times the precision.

    It is not interpolated, like `average_precision_score` of scikit-learn.

    Args:
        scores: Anomaly scores, as for `auroc`.
        labels: Labels, as for `auroc`.

    Returns:
        The average precision, 0 to 1.

    Raises:
        ValueError: The scores or labels are invalid, or one label is absent.
    """
    true_positives, false_positives = _counts(*_split(scores, labels))
    precision = true_positives / (true_positives + false_positives)
    steps = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float((steps * precision).sum())


def f1_max(scores: Scores, labels: Labels) -> float:
    """Compute the largest F1 score over all thresholds.

    Args:
        scores: Anomaly scores, as for `auroc`.
        labels: Labels, as for `auroc`.

    Returns:
        The F1 score, 0 to 1.

    Raises:
        ValueError: The scores or labels are invalid, or one label is absent.
    """
    true_positives, false_positives = _counts(*_split(scores, labels))
    return float((2 * true_positives / (true_positives + false_positives + true_positives[-1])).max())


def rank_correlation(first: Scores, second: Scores) -> float | None:
    """Compute Spearman's rank correlation of two lists of scores. Ties share their mean rank.

    Args:
        first: Scores, (N,).
        second: Scores, (N,).

    Returns:
        The correlation, -1 to 1; None if it is undefined, because N < 2 or all scores of a list are equal.

    Raises:
        ValueError: The shapes are not (N,) or differ, or a score is not finite.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"two lists of scores of one length, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("scores are finite numbers")
    ranks_a, ranks_b = (_ranks(x) - (len(x) - 1) / 2 for x in (a, b))
    scale = float(np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum() / scale) if scale > 0.0 else None


def _ranks(values: Float64Array) -> Float64Array:
    """Ranks from 0 on, (N,) float64; ties share their mean rank."""
    ordered = np.sort(values)
    left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    ranks: Float64Array = (left + right - 1) / 2.0
    return ranks


def _checked(scores: Scores, labels: Labels) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Check scores and labels, and return the labels as bool."""
    values, marks = np.asarray(scores), np.asarray(labels)
    if values.shape != marks.shape:
        raise ValueError(f"one label per score, not {marks.shape} for {values.shape}")
    truth = marks.astype(np.bool_)
    if not np.array_equal(truth, marks):
        raise ValueError("labels are 0 or 1, True or False, and are the second argument")
    if not np.isfinite(values).all():
        raise ValueError("scores are finite numbers")
    return values, truth


def _split(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """Return the sorted scores of good samples and the sorted scores of defects."""
    values, marks = _checked(scores, labels)
    good, defect = np.sort(values[~marks]), np.sort(values[marks])
    if not len(good) or not len(defect):
        raise ValueError(
            f"good and defect samples are both needed, and no label is {'defect' if len(good) else 'good'}"
        )
    return good, defect


def _counts(good: Scores, defect: Scores) -> tuple[Float64Array, Float64Array]:
    """Count true and false positives at every distinct score of a defect, from the highest to the lowest.

    Between two such scores only false positives are added, so neither recall nor the best F1 changes.
    """
    thresholds = np.unique(defect)[::-1]
    true_positives = len(defect) - np.searchsorted(defect, thresholds, side="left")
    false_positives = len(good) - np.searchsorted(good, thresholds, side="left")
    return true_positives.astype(np.float64), false_positives.astype(np.float64)


def _curve(good: Scores, defect: Scores, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Compute the corners of a curve of weighted true positives over the false-positive rate.

    Every distinct defect score has two corners: one with the threshold at the score, and one with the threshold just
    below it.

    Args:
        good: Sorted scores of good samples.
        defect: Scores of defects, in any order.
        weights: Weights of the defects, in the same order. Their sum is 1.

    Returns:
        False-positive rates and sums of weights, two float64 arrays of one length.
    """
    levels, inverse = np.unique(defect, return_inverse=True)
    gained = np.bincount(inverse.ravel(), weights=weights)[::-1]
    after = np.minimum(np.cumsum(gained), 1.0)
    above = len(good) - np.searchsorted(good, levels[::-1], side="right")
    reached = len(good) - np.searchsorted(good, levels[::-1], side="left")
    x = np.concatenate([[0], np.stack([above, reached], axis=1).ravel(), [len(good)]]) / len(good)
    y = np.concatenate([[0.0], np.stack([after - gained, after], axis=1).ravel(), [1.0]])
    return x, np.maximum(y, 0.0)
