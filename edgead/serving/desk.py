"""The desk: one actor that gives the bundles to the replicas, and adds up their counts.

The replicas may run on machines that share no disk with the command. A replica that is restarted gets the bundle again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

NAME = "edgead-desk"

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper limits of the times in the histogram of /metrics, in seconds."""

OUTCOMES = ("good", "anomalous", "refused", "failed")


@dataclass
class Counts:
    """Counts of one replica since its start.

    Attributes:
        outcomes: Number of answers, and of images of archives, by outcome: a verdict, "refused" for a bad request or
            image, "failed" for a model without a decision.
        times: Number of verdicts by the bucket of their time, one more than `BUCKETS_S`.
        seconds: Sum of the times of the verdicts.
        batches: Number of inferences.
    """

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    times: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0
    batches: int = 0

    def add_time(self, seconds: float) -> None:
        """Count the time of a verdict."""
        self.times[sum(seconds > limit for limit in BUCKETS_S)] += 1
        self.seconds += seconds

    def plus(self, other: Counts) -> Counts:
        """Return the sum with the counts of another replica."""
        return Counts(
            {name: self.outcomes[name] + other.outcomes[name] for name in OUTCOMES},
            [one + two for one, two in zip(self.times, other.times, strict=True)],
            self.seconds + other.seconds,
            self.batches + other.batches,
        )


class Desk:
    """Bundles and counts of the models.

    Args:
        bundles: References to the chunks of each bundle's parcel, by name of the model.
    """

    def __init__(self, bundles: Mapping[str, Sequence[object]]) -> None:
        self._bundles = {name: list(chunks) for name, chunks in bundles.items()}
        self._counts: dict[str, dict[str, Counts]] = {name: {} for name in bundles}

    def bundle(self, name: str) -> list[object]:
        """Return the references to the chunks of a bundle."""
        return self._bundles[name]

    def report(self, name: str, replica: str, counts: Counts) -> None:
        """Store the counts of a replica. Those of replicas that have ended stay: a counter never falls."""
        self._counts[name][replica] = counts

    def metrics(self) -> str:
        """Return the sums over the replicas in the text format of Prometheus."""
        totals = {name: sum_of(list(replicas.values())) for name, replicas in sorted(self._counts.items())}
        return "".join(f"{line}\n" for line in metric_lines(totals))


def sum_of(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of replicas.

    Args:
        counts: Counts, none or more.
    """
    total = Counts()
    for one in counts:
        total = total.plus(one)
    return total


def metric_lines(totals: Mapping[str, Counts]) -> Iterator[str]:
    """Yield the lines of the text format of Prometheus.

    Args:
        totals: Counts by name of the model; the names have no characters that the format escapes.
    """
    yield "# HELP edgead_requests_total Answered requests; each image of an archive counts as one."
    yield "# TYPE edgead_requests_total counter"
    for name, counts in totals.items():
        for outcome, count in counts.outcomes.items():
            yield f'edgead_requests_total{{model="{name}",outcome="{outcome}"}} {count}'
    yield "# HELP edgead_batches_total Inferences."
    yield "# TYPE edgead_batches_total counter"
    for name, counts in totals.items():
        yield f'edgead_batches_total{{model="{name}"}} {counts.batches}'
    yield "# HELP edgead_verdict_seconds Time from the request at the replica to its verdict."
    yield "# TYPE edgead_verdict_seconds histogram"
    for name, counts in totals.items():
        below = 0
        for limit, count in zip((*map(str, BUCKETS_S), "+Inf"), counts.times, strict=True):
            below += count
            yield f'edgead_verdict_seconds_bucket{{model="{name}",le="{limit}"}} {below}'
        yield f'edgead_verdict_seconds_sum{{model="{name}"}} {counts.seconds:.6f}'
        yield f'edgead_verdict_seconds_count{{model="{name}"}} {below}'
