"""Operating points: what each threshold finds and what it wrongly rejects on labelled images, with intervals.

A part is anomalous if its score is greater than the threshold, so only the order of the scores counts. A candidate
threshold lies half-way between two neighbouring scores, because a threshold on the score of one image would decide
on that image by the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgead.errors import InputError
from edgead.scoring.intervals import clopper_pearson

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Counts of one threshold on labelled images.

    Attributes:
        threshold: The threshold.
        found: Number of defects above the threshold.
        n_defects: Number of all defects, 1 or more.
        false_alarms: Number of good images above the threshold.
        n_good: Number of all good images, 1 or more.

    Example:
        >>> point = OperatingPoint(0.5, found=3, n_defects=4, false_alarms=1, n_good=10)
        >>> point.recall, point.precision, point.f1
        (0.75, 0.75, 0.75)
    """

    threshold: float
    found: int
    n_defects: int
    false_alarms: int
    n_good: int

    @property
    def recall(self) -> float:
        """Share of the defects that is found."""
        return self.found / self.n_defects

    @property
    def false_alarm_rate(self) -> float:
        """Share of the good images that is rejected."""
        return self.false_alarms / self.n_good

    @property
    def precision(self) -> float | None:
        """Share of defects among the rejected images; None if nothing is rejected."""
        rejected = self.found + self.false_alarms
        return self.found / rejected if rejected else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if nothing is rejected."""
        return 2 * self.found / (self.found + self.false_alarms + self.n_defects)

    def recall_interval(self, confidence: float = 0.95) -> Interval:
        """Return the Clopper-Pearson interval of the recall."""
        return clopper_pearson(self.found, self.n_defects, confidence)

    def false_alarm_interval(self, confidence: float = 0.95) -> Interval:
        """Return the Clopper-Pearson interval of the false-alarm rate."""
        return clopper_pearson(self.false_alarms, self.n_good, confidence)

    def precision_interval(self, confidence: float = 0.95) -> Interval:
        """Return the Clopper-Pearson interval of the precision, for these shares of good parts and defects."""
        return clopper_pearson(self.found, self.found + self.false_alarms, confidence)

    def f1_interval(self, confidence: float = 0.95) -> Interval:
        """Return the interval of F1, for these shares of good parts and defects.

        F1 is no share, but it rises with one: with j = found / (defects + false alarms), F1 = 2 j / (1 + j). So the
        limits are those of the Clopper-Pearson interval of j.
        """
        low, high = clopper_pearson(self.found, self.n_defects + self.false_alarms, confidence)
        return 2 * low / (1 + low), 2 * high / (1 + high)


class LabelledScores:
    """Scores of labelled images.

    Args:
        good: Scores of good images, (N,), N >= 2.
        defects: Scores of defects, (M,), M >= 2.

    Raises:
        InputError: There are fewer than two images of a kind, or a score is not finite.
    """

    def __init__(
        self,
        good: Sequence[float] | npt.NDArray[np.floating],
        defects: Sequence[float] | npt.NDArray[np.floating],
    ) -> None:
        self.good = np.sort(np.asarray(good, dtype=np.float64))
        self.defects = np.sort(np.asarray(defects, dtype=np.float64))
        for kind, scores in (("good parts", self.good), ("defects", self.defects)):
            if len(scores) < 2:
                count = f"{len(scores)} image" + ("" if len(scores) == 1 else "s")
                raise InputError(
                    f"{count} of {kind} among the labelled images, and 2 or more are needed",
                    hint="give images of good parts and of defects, better 20 or more of each",
                )
            if not np.isfinite(scores).all():
                raise InputError(
                    f"a score of the {kind} is not a finite number, so the model is broken",
                    hint="build the bundle again",
                )

    def at(self, threshold: float) -> OperatingPoint:
        """Count the images above a threshold.

        Args:
            threshold: Any finite number.
        """
        found, false_alarms = (
            len(scores) - int(np.searchsorted(scores, threshold, side="right"))
            for scores in (self.defects, self.good)
        )
        return OperatingPoint(threshold, found, len(self.defects), false_alarms, len(self.good))

    def candidates(self) -> list[OperatingPoint]:
        """Return one operating point for each set of decisions that a threshold can make.

        The thresholds rise. The lowest one lies below all scores and the highest one above all, by half the distance
        to the next score.
        """
        scores = np.unique(np.concatenate([self.good, self.defects]))
        middle = (scores[:-1] + scores[1:]) / 2 if len(scores) > 1 else np.empty(0)
        step = (scores[1] - scores[0]) / 2 if len(scores) > 1 else 0.5
        last = (scores[-1] - scores[-2]) / 2 if len(scores) > 1 else 0.5
        values = [scores[0] - step, *middle, scores[-1] + last]
        return [self.at(float(value)) for value in values]

    def best_f1(self) -> OperatingPoint:
        """Return the operating point with the largest F1; of equal ones, the one with the fewest false alarms.

        Polidori and others, 2022, section 5.2.
        """
        return max(self.candidates(), key=lambda point: (point.f1, -point.false_alarms, point.threshold))

    def with_recall(self, recall: float) -> OperatingPoint:
        """Return the operating point with the highest threshold that finds a share of the defects.

        Args:
            recall: Smallest share of defects to find, above 0 and at most 1.

        Raises:
            InputError: The share is out of range.
        """
        if not 0.0 < recall <= 1.0:
            raise InputError(
                f"the recall is {recall}", hint="give a number above 0 and at most 1, such as 0.95"
            )
        return max(
            (point for point in self.candidates() if point.recall >= recall),
            key=lambda point: point.threshold,
        )

    def table(self, current: float) -> list[tuple[str, OperatingPoint]]:
        """Choose the operating points that a person compares.

        Args:
            current: Current threshold.

        Returns:
            Names and operating points, from the highest threshold to the lowest.
        """
        every = self.candidates()
        rows = [("current", self.at(current)), ("best F1", self.best_f1())]
        rows += [
            (f"recall {recall:g}", self.with_recall(recall)) for recall in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
        ]
        for rate in (0.0, 0.01, 0.05, 0.1, 0.2):
            lowest = min(
                (point for point in every if point.false_alarm_rate <= rate), key=lambda p: p.threshold
            )
            rows.append((f"false alarms {rate:g}", lowest))
        named: dict[OperatingPoint, list[str]] = {}
        for name, point in rows:
            named.setdefault(point, []).append(name)
        ordered = sorted(named.items(), key=lambda item: -item[0].threshold)
        return [(", ".join(names), point) for point, names in ordered]
