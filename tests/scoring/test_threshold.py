"""The threshold against SciPy's binomial distribution and against the promise itself, by simulation."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from edgead.errors import InputError
from edgead.scoring.threshold import (
    Threshold,
    images_needed,
    smallest_rate,
    threshold_from_normal_scores,
)

CASES = [
    (n, rate, confidence)
    for n in (1, 2, 5, 30, 59, 299, 1000)
    for rate in (0.001, 0.01, 0.05, 0.3, 0.9)
    for confidence in (0.5, 0.9, 0.95, 0.999)
]


def smallest_k(n, rate, confidence):
    """The definition, with SciPy: smallest k with P(Binomial(n, 1 - rate) <= k - 1) >= confidence."""
    ks = np.arange(1, n + 1)
    enough = scipy.stats.binom.cdf(ks - 1, n, 1 - rate) >= confidence
    return int(ks[enough][0]) if enough.any() else None


@pytest.mark.parametrize(("n", "rate", "confidence"), CASES)
def test_order_statistic_is_scipys(n, rate, confidence):
    scores = np.random.default_rng(n).permutation(np.arange(1, n + 1)).astype(np.float64)
    threshold = threshold_from_normal_scores(scores, rate, confidence)
    k = smallest_k(n, rate, confidence)
    # The k-th smallest of 1..n is k.
    assert threshold.value == (n if k is None else k)
    assert threshold.set_by_highest == (threshold.value == n)
    expected = scipy.stats.binom.cdf(int(threshold.value) - 1, n, 1 - rate)
    assert threshold.achieved_confidence == pytest.approx(expected, abs=1e-9)
    assert threshold.n_normal == n
    assert (threshold.warning() is None) == (k is not None)
    assert 1 - (1 - rate) ** threshold.n_needed >= confidence
    assert 1 - (1 - rate) ** (threshold.n_needed - 1) < confidence
    assert (n >= threshold.n_needed) == (k is not None)


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"), [(0.01, 0.95, 299), (0.05, 0.95, 59), (0.001, 0.95, 2995)]
)
def test_known_sample_sizes(rate, confidence, needed):
    # The textbook numbers of Wilks' one-sided tolerance limits.
    assert threshold_from_normal_scores([1.0], rate, confidence).n_needed == needed


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"),
    [
        (0.25, 0.25, 1),
        (0.12, 0.2256, 2),
        (0.01, 0.1399416453587115, 15),
        (0.5, 0.75, 2),
        (0.5, 0.5, 1),
        (0.1, 0.271, 3),
        (0.1, 0.19, 2),
    ],
)
def test_exact_boundaries_agree_with_the_warning(rate, confidence, needed):
    """1 - (1 - rate)^needed is the confidence except rounding: both answers round to the same side."""
    threshold = threshold_from_normal_scores(np.arange(needed, dtype=float), rate, confidence)
    assert threshold.n_needed in (needed, needed + 1)
    assert (threshold.warning() is None) == (threshold.n_needed <= needed)


def test_promise_holds_by_simulation():
    """Over many draws of 200 normal scores, the true false-alarm rate keeps the budget at least 95 % of the time."""
    rng = np.random.default_rng(0)
    kept = 0
    for scores in rng.lognormal(size=(2000, 200)):
        threshold = threshold_from_normal_scores(scores, 0.05, 0.95)
        kept += scipy.stats.lognorm.sf(threshold.value, 1.0) <= 0.05
    expected = threshold_from_normal_scores(np.arange(200.0), 0.05, 0.95).achieved_confidence
    assert expected >= 0.95
    # Five standard errors of 2000 draws.
    assert kept / 2000 == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 2000) ** 0.5)


def test_too_few_images_are_a_warning_with_the_numbers():
    threshold = threshold_from_normal_scores(np.linspace(0, 1, 20))
    assert threshold.value == 1.0
    assert threshold.achieved_confidence == pytest.approx(1 - 0.99**20)
    warning = threshold.warning()
    assert "20" in warning
    assert "299" in warning
    assert "0.14" in warning  # 1 - 0.05^(1/20)
    assert "1 normal images" not in threshold_from_normal_scores([0.5]).warning()


def test_float32_scores_are_kept_exactly():
    scores = np.random.default_rng(5).random(50).astype(np.float32)
    threshold = threshold_from_normal_scores(scores)
    assert np.float32(threshold.value) == scores.max()
    # "Greater than": the image that set the threshold is good.
    assert not (scores.astype(np.float64) > threshold.value).any()


def test_survives_a_dictionary():
    threshold = threshold_from_normal_scores([0.1, 0.2, 0.3])
    assert Threshold(**dataclasses.asdict(threshold)) == threshold


@pytest.mark.parametrize(
    ("scores", "value"), [([], ""), ([0.1, float("nan")], "1 of 2"), ([float("inf")], "1 of 1")]
)
def test_unusable_scores_are_refused(scores, value):
    with pytest.raises(InputError) as refusal:
        threshold_from_normal_scores(scores)
    assert value in refusal.value.what


def test_extreme_budgets_end_quickly_and_fit_the_definition():
    """The loops that fix rounding must not run for ever where images are counted in thousand millions."""
    threshold = threshold_from_normal_scores([1.0], 1e-9, 0.999999)
    assert threshold.n_needed == pytest.approx(-np.log(1e-6) * 1e9, rel=1e-6)
    assert threshold.achieved_confidence == pytest.approx(1e-9)


@pytest.mark.parametrize("rate", [0.0, 1e-20, 1.0, -0.1, float("nan")])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(InputError) as refusal:
        threshold_from_normal_scores([1.0], false_alarm_rate=rate)
    assert str(rate) in refusal.value.what


@pytest.mark.parametrize("confidence", [0.0, 1 - 1e-12, 1.0, -0.1, float("nan")])
def test_confidences_out_of_range_are_refused(confidence):
    with pytest.raises(InputError) as refusal:
        threshold_from_normal_scores([1.0], confidence=confidence)
    assert str(confidence) in refusal.value.what


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", float("nan")),
        ("value", float("inf")),
        ("achieved_confidence", 1.1),
        ("n_normal", 0),
        ("n_needed", 0),
    ],
)
def test_impossible_fields_are_refused(field, value):
    good = threshold_from_normal_scores([1.0])
    with pytest.raises(InputError):
        dataclasses.replace(good, **{field: value})


@pytest.mark.parametrize("above", [0, 1, 2, 7])
@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5, 0.95])
def test_the_number_of_images_that_a_rate_needs_is_the_smallest(rate, above):
    needed = images_needed(rate, 0.95, above)
    assert scipy.stats.binom.sf(above, needed, rate) >= 0.95
    assert needed == 1 or scipy.stats.binom.sf(above, needed - 1, rate) < 0.95


def test_the_smallest_rate_of_a_number_of_images():
    # 0.05^(1/9) = 0.7169
    assert smallest_rate(9) == pytest.approx(0.2831, abs=1e-4)
    assert images_needed(smallest_rate(9) + 1e-9) == 9
