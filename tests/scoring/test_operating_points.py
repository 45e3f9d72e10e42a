"""Operating points on a handful of scores, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgead.errors import InputError
from edgead.scoring.intervals import clopper_pearson
from edgead.scoring.metrics import f1_max
from edgead.scoring.operating_points import LabelledScores, OperatingPoint

GOOD = [1.0, 2.0, 3.0, 6.0]
DEFECTS = [4.0, 5.0, 8.0]


@pytest.fixture
def labelled() -> LabelledScores:
    return LabelledScores(GOOD, DEFECTS)


def test_counts_of_one_threshold(labelled):
    point = labelled.at(4.5)
    assert (point.found, point.n_defects, point.false_alarms, point.n_good) == (2, 3, 1, 4)
    assert (point.recall, point.precision, point.false_alarm_rate) == (2 / 3, 2 / 3, 0.25)
    assert point.f1 == pytest.approx(2 / 3)


def test_a_score_equal_to_the_threshold_is_good(labelled):
    assert (labelled.at(4.0).found, labelled.at(6.0).false_alarms) == (2, 0)


def test_candidates_lie_between_the_scores_and_make_every_decision(labelled):
    every = labelled.candidates()
    assert [point.threshold for point in every] == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 7.0, 9.0]
    assert [(point.found, point.false_alarms) for point in every] == [
        (3, 4), (3, 3), (3, 2), (3, 1), (2, 1), (1, 1), (1, 0), (0, 0),
    ]  # fmt: skip


def test_the_best_f1(labelled):
    # At 3.5: 3 found, 1 false alarm: 6 / 7. Everything else is lower.
    point = labelled.best_f1()
    assert (point.threshold, point.f1) == (3.5, pytest.approx(6 / 7))


def test_the_best_f1_is_the_largest_of_the_metric():
    rng = np.random.default_rng(1)
    for _ in range(50):
        good, defects = rng.integers(0, 9, 12).astype(float), rng.integers(3, 14, 7).astype(float)
        labels = np.repeat([0, 1], [12, 7])
        best = LabelledScores(good, defects).best_f1().f1
        assert best == pytest.approx(f1_max(np.concatenate([good, defects]), labels))


@pytest.mark.parametrize(("recall", "threshold"), [(1.0, 3.5), (0.67, 3.5), (0.6, 4.5), (0.3, 7.0)])
def test_the_highest_threshold_with_a_recall(labelled, recall, threshold):
    assert labelled.with_recall(recall).threshold == threshold


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.1, float("nan")])
def test_a_recall_out_of_range_is_refused(labelled, recall):
    with pytest.raises(InputError):
        labelled.with_recall(recall)


def test_intervals_are_of_the_counts_they_name():
    point = OperatingPoint(0.5, found=14, n_defects=20, false_alarms=2, n_good=90)
    assert point.recall_interval() == clopper_pearson(14, 20)
    assert point.false_alarm_interval(0.9) == clopper_pearson(2, 90, 0.9)
    assert point.precision_interval() == clopper_pearson(14, 16)
    # 14 of 22 images that are a defect or are called one.
    low, high = clopper_pearson(14, 22)
    assert point.f1_interval() == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert point.f1_interval()[0] < point.f1 < point.f1_interval()[1]


def test_nothing_rejected_has_no_precision(labelled):
    point = labelled.at(100.0)
    assert (point.precision, point.f1, point.recall) == (None, 0.0, 0.0)
    assert point.precision_interval() == (0.0, 1.0)


def test_the_table_falls_and_holds_the_current_threshold(labelled):
    table = labelled.table(5.2)
    thresholds = [point.threshold for _, point in table]
    assert thresholds == sorted(thresholds, reverse=True)
    (current,) = (point for name, point in table if "current" in name)
    assert (current.threshold, current.found, current.false_alarms) == (5.2, 1, 1)


def test_equal_scores_have_two_operating_points():
    points = LabelledScores([1.0, 1.0], [1.0, 1.0]).candidates()
    assert [(point.found, point.false_alarms) for point in points] == [(2, 2), (0, 0)]


@pytest.mark.parametrize(
    ("good", "defects"),
    [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([], [1.0, 2.0]), ([1.0, np.nan], [2.0, 3.0])],
)
def test_too_few_images_and_broken_scores_are_refused(good, defects):
    with pytest.raises(InputError):
        LabelledScores(good, defects)
