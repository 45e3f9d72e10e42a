"""The number of held-out images against the definition of the promise with SciPy."""

import numpy as np
import pytest
import scipy.stats

from edgead.errors import InputError
from edgead.scoring.hold_out import AUTO, enough_images, hold_out_count
from edgead.scoring.threshold import smallest_rate, threshold_from_normal_scores

RATES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)


def needed_for(rate, above=0):
    """Smallest n such that all but `above` of n scores keep the rate: P(Binomial(n, rate) > above) >= 0.95."""
    n = 1
    while scipy.stats.binom.sf(above, n, rate) < 0.95:
        n += 1
    return n


@pytest.mark.parametrize(("hold_out", "count"), [("0.1", 9), ("0.3", 27), ("30", 30), ("1", 1), ("0.001", 1)])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_a_number_or_a_share_does_not_depend_on_the_rate(hold_out, count, rate):
    assert hold_out_count(90, hold_out, rate) == count


@pytest.mark.parametrize("hold_out", ["0", "1.0", "1.5", "-3", "nan", "inf", "many", "", "Auto", "9" * 5000])
def test_another_hold_out_is_refused(hold_out):
    with pytest.raises(InputError):
        hold_out_count(90, hold_out, 0.01)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n", [2, 3, 5, 29, 50, 90, 200, 897, 5000])
def test_the_automatic_hold_out_is_enough_or_a_third(n, rate):
    count = hold_out_count(n, AUTO, rate)
    assert 1 <= count < n
    assert n / 10 - 1 < count < n / 3 + 1
    if count < n // 3:
        threshold = threshold_from_normal_scores(np.arange(count, dtype=float), rate)
        assert threshold.warning() is None
        assert count in (needed_for(rate, above=2), round(n / 10))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("unusual", [[1e6], [1e6, 2e6]])
def test_two_unusual_images_of_enough_do_not_set_the_threshold(rate, unusual):
    count = hold_out_count(3 * needed_for(rate, above=2), AUTO, rate)
    scores = [*np.linspace(1.0, 2.0, count - len(unusual)), *unusual]
    threshold = threshold_from_normal_scores(scores, rate)
    assert threshold.warning() is None
    assert threshold.value <= 2.0


@pytest.mark.parametrize("hold_out", [AUTO, "0.1", "0.25"])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_enough_images_in_all_hold_out_enough(hold_out, rate):
    enough = enough_images(hold_out, rate)
    assert hold_out_count(enough, hold_out, rate) >= needed_for(rate)
    # Rounding of the share makes a few images fewer enough.
    fewer = enough - int(1 / 0.1) - 1
    assert hold_out_count(fewer, hold_out, rate) < needed_for(rate)


def test_no_number_of_images_is_enough_for_a_fixed_hold_out():
    assert enough_images("30", 0.01) is None


@pytest.mark.parametrize("n", [50, 90, 200])
def test_the_promise_of_the_automatic_hold_out_holds_at_its_confidence(n):
    """The share of all parts above the highest of `count` scores has the distribution Beta(1, count)."""
    count = hold_out_count(n, AUTO, 0.01)
    promised = smallest_rate(count)
    assert scipy.stats.beta.cdf(promised, 1, count) == pytest.approx(0.95)
    scores = np.random.default_rng(5).lognormal(size=(4000, count))
    # Share of the distribution above the highest score, exactly.
    true_rate = scipy.stats.lognorm.sf(scores.max(axis=1), 1.0)
    kept = int((true_rate <= promised).sum())
    assert scipy.stats.binomtest(kept, 4000, 0.95).pvalue > 1e-4
