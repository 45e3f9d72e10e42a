"""How well scores and maps tell defects from good, without scikit-learn.

Image metrics and pixel metrics are the same functions: a test set of 160 maps at 256 pixels is ten million
scores of which few are positive. So the negatives are sorted once, every positive is looked up in them, and
nothing is ever binned or sampled: ties count exactly, as in scikit-learn. A curve is kept as the corners of
its exact polyline, which can only bend at the score of a positive.

Every function raises ValueError for scores that are not finite, labels that are not 0 or 1, or shapes that
differ, and those that need both labels say which one is absent.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgead.types import Float64Array

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.bool_ | np.integer[Any]]


def auroc(scores: Scores, labels: Labels) -> float:
    """Give the area under the ROC curve: the chance that a defect scores above a good one, ties half.

    scores, labels: of one shape, any; label 1 or True is a defect, higher scores are more anomalous.
    """
    good, defect = _split(scores, labels)
    below = np.searchsorted(good, defect, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(good, defect, side="right").sum(dtype=np.int64)
    return float((int(below) + int(not_above)) / (2 * len(good) * len(defect)))


def roc_curve(scores: Scores, labels: Labels) -> tuple[Float64Array, Float64Array]:
    """Give the corners of the ROC curve, from (0, 0) to (1, 1): false-positive rates and true-positive rates.

    scores, labels: as for `auroc`. Returns two float64 arrays of one length, both rising. Straight lines
    between the corners are the exact curve, diagonal where good and defect scores tie.
    """
    good, defect = _split(scores, labels)
    return _curve(good, defect, np.full(len(defect), 1.0 / len(defect)))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Give the average precision: sum over thresholds of the step in recall times the precision there.

    scores, labels: as for `auroc`. Not interpolated, as scikit-learn's `average_precision_score`.
    """
    true_positives, false_positives = _counts(*_split(scores, labels))
    precision = true_positives / (true_positives + false_positives)
    steps = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float((steps * precision).sum())


def f1_max(scores: Scores, labels: Labels) -> float:
    """Give the largest F1 score that any threshold reaches; scores, labels: as for `auroc`."""
    true_positives, false_positives = _counts(*_split(scores, labels))
    return float((2 * true_positives / (true_positives + false_positives + true_positives[-1])).max())


def dice(maps: Scores, masks: Labels, threshold: float) -> float:
    """Give the Dice coefficient 2 TP / (2 TP + FP + FN) over all pixels of all images together.

    maps, masks: of one shape. A pixel is called a defect when its value is greater than `threshold`. Raises
    ValueError when no pixel is a defect and none is called one: there is nothing to overlap.
    """
    values, truth = _checked(maps, masks)
    called = values > threshold
    total = int(np.count_nonzero(called)) + int(np.count_nonzero(truth))
    if total == 0:
        raise ValueError("no pixel is a defect and none is called one")
    return 2 * int(np.count_nonzero(called & truth)) / total


def aupro(maps: Scores, masks: Labels, limit: float = 0.3) -> float:
    """Give the area under the per-region-overlap curve up to a false-positive rate, over that rate: 0 to 1.

    maps, masks: (N, H, W), good images included with empty masks. Per threshold, the overlap is the share
    of a defect region that is above it, averaged over all 8-connected regions of all images, small and
    large alike; the false-positive rate is over all defect-free pixels. The curve is exact, cut at `limit` by
    a straight line. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.1.
    """
    if not 0.0 < limit <= 1.0:
        raise ValueError(f"the limit of the false-positive rate is above 0 and at most 1, not {limit}")
    values, truth = _checked(maps, masks)
    if values.ndim != 3:
        raise ValueError(f"maps are (N, H, W), not {values.shape}")
    good, _ = _split(values, truth)
    scores, weights = [], []
    for value, mask in zip(values, truth, strict=True):
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            inside = regions[mask]
            scores.append(value[mask])
            weights.append(1.0 / np.bincount(inside)[inside])
    # Every region weighs 1 in all, so the sum of the weights is the number of regions.
    weight = np.concatenate(weights)
    x, y = _curve(good, np.concatenate(scores), weight / weight.sum())
    inside_limit = int(np.searchsorted(x, limit, side="right"))
    if inside_limit < len(x):
        (x0, x1), (y0, y1) = x[inside_limit - 1 : inside_limit + 1], y[inside_limit - 1 : inside_limit + 1]
        x = np.append(x[:inside_limit], limit)
        y = np.append(y[:inside_limit], y0 + (y1 - y0) * (limit - x0) / (x1 - x0))
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / (2.0 * limit))


def rank_correlation(first: Scores, second: Scores) -> float | None:
    """Give Spearman's rank correlation of two lists of scores, -1 to 1, ties sharing their mean rank.

    first, second: (N,). None where it has no meaning: fewer than two scores, or all of one list equal.
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
    ordered = np.sort(values)
    left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    ranks: Float64Array = (left + right - 1) / 2.0
    return ranks


def _checked(scores: Scores, labels: Labels) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Give scores as they are and labels as bool, after the checks that every function makes."""
    values, marks = np.asarray(scores), np.asarray(labels)
    if values.shape != marks.shape:
        raise ValueError(f"one label per score, not {marks.shape} for {values.shape}")
    truth = marks.astype(np.bool_)
    if not np.array_equal(truth, marks):
        raise ValueError("labels are 0 or 1, True or False, and come after the scores")
    if not np.isfinite(values).all():
        raise ValueError("scores are finite numbers")
    return values, truth


def _split(scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
    """Give the scores of the good, sorted, and of the defects, sorted."""
    values, marks = _checked(scores, labels)
    good, defect = np.sort(values[~marks]), np.sort(values[marks])
    if not len(good) or not len(defect):
        raise ValueError(
            f"good and defect are both needed: no {'defect' if len(good) else 'good'} among the labels"
        )
    return good, defect


def _counts(good: Scores, defect: Scores) -> tuple[Float64Array, Float64Array]:
    """Give true and false positives at every distinct score of a defect, from the highest to the lowest.

    Between two of them only false positives are added, so neither recall nor the best F1 changes there.
    """
    thresholds = np.unique(defect)[::-1]
    true_positives = len(defect) - np.searchsorted(defect, thresholds, side="left")
    false_positives = len(good) - np.searchsorted(good, thresholds, side="left")
    return true_positives.astype(np.float64), false_positives.astype(np.float64)


def _curve(good: Scores, defect: Scores, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Give the corners of a curve of weighted true positives over the false-positive rate.

    good: sorted. defect, weights: of one length, any order, weights summing to 1. Every distinct defect score
    has the corner where the threshold comes down to it and the one where it has passed it.
    """
    levels, inverse = np.unique(defect, return_inverse=True)
    gained = np.bincount(inverse.ravel(), weights=weights)[::-1]
    after = np.minimum(np.cumsum(gained), 1.0)
    above = len(good) - np.searchsorted(good, levels[::-1], side="right")
    reached = len(good) - np.searchsorted(good, levels[::-1], side="left")
    x = np.concatenate([[0], np.stack([above, reached], axis=1).ravel(), [len(good)]]) / len(good)
    y = np.concatenate([[0.0], np.stack([after - gained, after], axis=1).ravel(), [1.0]])
    return x, np.maximum(y, 0.0)
