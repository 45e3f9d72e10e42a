import numpy as np
import pytest

from edgead.streaming.latency import LatencyHistogram


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_percentiles_are_within_one_per_cent_of_the_nearest_rank(percent: float) -> None:
    latencies = np.random.default_rng(0).lognormal(3.0, 1.5, 5000)
    histogram = LatencyHistogram()
    for latency in latencies:
        histogram.add(latency)
    exact = np.percentile(latencies, percent, method="inverted_cdf")
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.01)


def test_one_latency_is_every_percentile() -> None:
    histogram = LatencyHistogram()
    histogram.add(12.5)
    assert [histogram.percentile(p) for p in (1, 50, 99)] == [pytest.approx(12.5, rel=0.01)] * 3


def test_nothing_counted_has_no_percentile() -> None:
    assert LatencyHistogram().percentile(50) is None


@pytest.mark.parametrize(("latency", "shown"), [(0.0, 1e-3), (-1.0, 1e-3), (1e9, 1e6)])
def test_latencies_beyond_the_ends_count_at_the_ends(latency: float, shown: float) -> None:
    histogram = LatencyHistogram()
    histogram.add(latency)
    assert histogram.percentile(50) == pytest.approx(shown, rel=0.011)
