"""Clopper-Pearson intervals against their published definition, and against SciPy's beta quantiles."""

from __future__ import annotations

import pytest

from edgead.scoring.intervals import clopper_pearson, incomplete_beta, upper_limit


def test_without_a_single_hit_the_upper_limit_is_known_in_closed_form():
    low, high = clopper_pearson(0, 20)
    assert low == 0.0
    # P(0 of 20) = (1 - share)^20 = 0.025
    assert high == pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-12)


def test_one_of_one_and_nothing_of_nothing():
    assert clopper_pearson(1, 1) == (pytest.approx(0.025, abs=1e-12), 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 2, 7, 20, 150, 5000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_limits_are_the_quantiles_of_the_beta_distribution(n, share, confidence):
    beta = pytest.importorskip("scipy.stats").beta
    count, tail = round(share * n), (1 - confidence) / 2
    low, high = clopper_pearson(count, n, confidence)
    if count > 0:
        assert low == pytest.approx(beta.ppf(tail, count, n - count + 1), rel=1e-9)
    if count < n:
        assert high == pytest.approx(beta.ppf(1 - tail, count + 1, n - count), rel=1e-9)


@pytest.mark.parametrize(("count", "n"), [(0, 9), (1, 213), (3, 40), (7, 7)])
@pytest.mark.parametrize("confidence", [0.3, 0.95, 0.999])
def test_the_upper_limit_is_the_share_at_which_so_few_hits_are_improbable(count, n, confidence):
    binom = pytest.importorskip("scipy.stats").binom
    limit = upper_limit(count, n, confidence)
    if count == n:
        assert limit == 1.0
    else:
        assert binom.cdf(count, n, limit) == pytest.approx(1 - confidence, rel=1e-9)


def test_the_incomplete_beta_function_at_its_ends_and_for_a_uniform_distribution():
    assert [incomplete_beta(x, 1.0, 1.0) for x in (0.0, 0.25, 1.0)] == pytest.approx([0.0, 0.25, 1.0])
    # I_x(2, 1) = x^2
    assert incomplete_beta(0.3, 2.0, 1.0) == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("count", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_counts_and_confidences_out_of_range_are_refused(count, n, confidence):
    with pytest.raises(ValueError, match=r"\d"):
        clopper_pearson(count, n, confidence)
