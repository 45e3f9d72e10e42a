"""Metrics against scikit-learn, and AUPRO against a slow walk over every threshold."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import sklearn.metrics

from edgead.scoring import metrics


def draw(rng, n, levels):
    labels = rng.random(n) < 0.2
    labels[:2] = True, False
    scores = (rng.standard_normal(n) + labels).astype(np.float32)
    # Few levels give many ties, within and between the two labels.
    return (np.round(scores * levels) / levels if levels else scores).astype(np.float32), labels


@pytest.mark.parametrize("levels", [None, 8, 2])
@pytest.mark.parametrize("n", [2, 7, 100, 5000])
def test_scores_agree_with_scikit_learn(n, levels):
    scores, labels = draw(np.random.default_rng(n), n, levels)
    assert metrics.auroc(scores, labels) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12
    )
    expected = sklearn.metrics.average_precision_score(labels, scores)
    assert metrics.average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert metrics.f1_max(scores, labels) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 4])
def test_roc_curve_has_scikit_learns_corners(levels):
    scores, labels = draw(np.random.default_rng(3), 400, levels)
    x, y = metrics.roc_curve(scores, labels)
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= -1e-12).all()
    corners = {(round(a, 9), round(b, 9)) for a, b in zip(x, y, strict=True)}
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    # Every corner is one of scikit-learn's points, and none that bends the curve is left out: the areas are equal.
    assert corners <= {(round(a, 9), round(b, 9)) for a, b in zip(fpr, tpr, strict=True)}
    assert len(corners) < len(fpr)
    assert sklearn.metrics.auc(x, y) == pytest.approx(metrics.auroc(scores, labels), abs=1e-12)


def test_labels_may_be_integers_and_of_any_shape():
    scores = np.array([[0.1, 0.4], [0.35, 0.8]])
    assert metrics.auroc(scores, np.array([[0, 0], [1, 1]])) == 0.75


def test_extremes():
    labels = np.array([0, 0, 1, 1])
    assert metrics.auroc(np.array([1.0, 2, 3, 4]), labels) == 1.0
    assert metrics.auroc(np.array([3.0, 4, 1, 2]), labels) == 0.0
    assert metrics.auroc(np.ones(4), labels) == 0.5


def test_rank_correlation_agrees_with_scipy():
    rng = np.random.default_rng(4)
    first = np.round(rng.standard_normal(60), 1)
    second = first + np.round(rng.standard_normal(60), 1)
    assert metrics.rank_correlation(first, second) == pytest.approx(
        scipy.stats.spearmanr(first, second).statistic
    )
    assert metrics.rank_correlation(first, np.exp(first)) == pytest.approx(1.0)
    assert metrics.rank_correlation(first, -first) == pytest.approx(-1.0)
    assert metrics.rank_correlation(first, np.ones(60)) is None
    assert metrics.rank_correlation(np.array([1.0]), np.array([2.0])) is None


def test_invalid_arguments_are_refused():
    scores = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match=r"defect$"):
        metrics.auroc(scores, np.array([0, 0]))
    with pytest.raises(ValueError, match=r"good$"):
        metrics.average_precision(scores, np.array([1, 1]))
    with pytest.raises(ValueError, match=r"\(1,\) for \(2,\)"):
        metrics.auroc(scores, np.array([1]))
    with pytest.raises(ValueError, match="labels"):
        metrics.auroc(np.array([0, 1]), scores)
    with pytest.raises(ValueError, match="finite"):
        metrics.f1_max(np.array([0.1, np.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        metrics.rank_correlation(scores, scores[:1])
    with pytest.raises(ValueError, match="finite"):
        metrics.rank_correlation(scores, np.array([np.inf, 1]))
