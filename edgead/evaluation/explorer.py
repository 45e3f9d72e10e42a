"""Content of the threshold explorer of a report: every image, the confusion table and the plot of the scores.

The page has the counts of the threshold of the model without a script. The script of the page counts again when a
person moves the threshold, with the scores of the rows and by the same rule: a score above the threshold is anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgead.data import Sample
from edgead.evaluation.dataset_scores import Scores
from edgead.evaluation.evaluate import Evaluation
from edgead.scoring.decision import decide
from edgead.scoring.intervals import clopper_pearson
from edgead.types import Float64Array, share_of_threshold

_BINS = 80
_PLOT_WIDTH, _HALF_HEIGHT = 1000, 50
_TICKS = 5


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image in the table of a page.

    Attributes:
        index: Position of the image in the scores.
        name: Name of the file and its folder.
        kind: "good", the name of the defect, or "unlabelled".
        kind_number: Number of the kind: 0 for good, then the defects by name, then "unlabelled".
        label: 0 for good, 1 for a defect, None without a label.
        score: Anomaly score; None if it is not finite.
        share: Score as a share of the threshold; None without a threshold above 0.
        outcome: See `outcome`; None without a decision.
        right: Whether the decision agrees with the label; None without a decision or a label.
    """

    index: int
    name: str
    kind: str
    kind_number: int
    label: int | None
    score: float | None
    share: float | None
    outcome: str | None
    right: bool | None


@dataclass(frozen=True, slots=True)
class Share:
    """A share that is counted on images.

    Attributes:
        count: Number of counted images.
        n: Number of all images.
    """

    count: int
    n: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None without images."""
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Clopper-Pearson interval of the share."""
        return clopper_pearson(self.count, self.n)


@dataclass(frozen=True, slots=True)
class Group:
    """One row of the confusion table.

    Attributes:
        name: "good parts", "defects", the name of a defect, or "without a label".
        kinds: Numbers of the kinds that it counts.
        label: 0 for good, 1 for a defect, None without a label.
        rejected: Share of the images that is rejected; None without decisions.
        images: Number of images.
        auroc: Image AUROC against all good images; None if there is none.
        is_kind: Whether the row is one kind of several kinds of defects.
    """

    name: str
    kinds: tuple[int, ...]
    label: int | None
    rejected: Share | None
    images: int
    auroc: float | None
    is_kind: bool = False


@dataclass(frozen=True, slots=True)
class ScorePlot:
    """Histogram of the scores, good parts upwards and defects downwards.

    Attributes:
        low: Score at the left edge.
        high: Score at the right edge.
        ticks: Scores to write below the plot, from the left edge to the right edge at equal distances.
        cut: Position of the threshold, 0 to 1000.
        good: Path of the good parts in a view box of 1000 x 100; empty without good parts.
        defect: Path of the defects; empty without defects.
        unlabelled: Path of the images without a label, upwards; empty if all have one.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    cut: float
    good: str
    defect: str
    unlabelled: str

    @property
    def tick_texts(self) -> tuple[str, ...]:
        """Ticks with three digits. One that lies within a hundredth of the axis from 0 is 0."""
        near = (self.high - self.low) / 100.0
        return tuple("0" if abs(tick) < near else f"{tick:.3g}" for tick in self.ticks)


def outcome(label: int | None, is_anomalous: bool) -> str:
    """Name the outcome of a decision.

    Args:
        label: 0 for good, 1 for a defect, None without a label.
        is_anomalous: The decision.

    Returns:
        "found" or "missed" for a defect, "false alarm" or "passed" for a good part, "rejected" or "passed" without a
        label.
    """
    if label is None:
        return "rejected" if is_anomalous else "passed"
    if label == 1:
        return "found" if is_anomalous else "missed"
    return "false alarm" if is_anomalous else "passed"


def image_rows(evaluation: Evaluation, scores: Scores) -> list[ImageRow]:
    """Return a row for each image, the highest score first; images without a finite score come last.

    Args:
        evaluation: Metrics.
        scores: Scores and maps from which the metrics were computed.
    """
    defects = sorted({s.defect for s in scores.samples if s.label == 1})
    value = None if evaluation.threshold is None else evaluation.threshold.value
    rows = []
    for index in np.argsort(-scores.scores, kind="stable").tolist():
        sample, score = scores.samples[index], float(scores.scores[index])
        decision = None if value is None else decide(scores.maps[index], score, value)
        kind, number = _kind(sample, defects)
        rows.append(
            ImageRow(
                index=index,
                name=f"{sample.path.parent.name}/{sample.path.name}",
                kind=kind,
                kind_number=number,
                label=sample.label,
                score=score if np.isfinite(score) else None,
                share=None if value is None or not np.isfinite(score) else share_of_threshold(score, value),
                outcome=None if decision is None else outcome(sample.label, decision),
                right=None if decision is None or sample.label is None else decision == (sample.label == 1),
            )
        )
    return rows


def confusion(evaluation: Evaluation, rows: Sequence[ImageRow]) -> list[Group]:
    """Return the rows of the confusion table: good parts, defects, each kind if there are several, and unlabelled ones.

    Args:
        evaluation: Metrics.
        rows: Rows of all images.
    """
    decided = evaluation.misses is not None
    aurocs = {found.defect: found.image_auroc for found in evaluation.defects}

    def group(name: str, label: int | None, auroc: float | None = None, kind: str | None = None) -> Group:
        own = [row for row in rows if row.label == label and kind in (None, row.kind)]
        rejected = sum(row.outcome in ("found", "false alarm", "rejected") for row in own)
        kinds = tuple(sorted({row.kind_number for row in own}))
        share = Share(rejected, len(own)) if decided else None
        return Group(name, kinds, label, share, len(own), auroc, kind is not None)

    groups = [group("good parts", 0), group("defects", 1, evaluation.image_auroc)]
    if len(aurocs) > 1:
        groups += [group(name, 1, auroc, name) for name, auroc in aurocs.items()]
    groups.append(group("without a label", None))
    return [found for found in groups if found.images]


def score_plot(evaluation: Evaluation, scores: Scores) -> ScorePlot | None:
    """Draw the scores for the explorer.

    Args:
        evaluation: Metrics.
        scores: Scores from which the metrics were computed.

    Returns:
        The plot, which ends beyond all scores and the threshold; None without decisions.
    """
    if evaluation.threshold is None or evaluation.misses is None:
        return None
    cut, values = evaluation.threshold.value, scores.scores.astype(np.float64)
    first, last = min(float(values.min()), cut), max(float(values.max()), cut)
    margin = max((last - first) * 0.03, abs(last) * 1e-3, 1e-9)
    low, high = first - margin, last + margin
    if first > 0.0:
        # `edgead threshold --value` takes values above 0.
        low = max(low, first / 2)
    labels = np.array([-1 if sample.label is None else sample.label for sample in scores.samples])
    good, defect, unlabelled = (
        _bars(values[labels == label], low, high, direction)
        for label, direction in ((0, -1), (1, 1), (-1, -1))
    )
    ticks = tuple(np.linspace(low, high, _TICKS).tolist())
    return ScorePlot(low, high, ticks, (cut - low) / (high - low) * _PLOT_WIDTH, good, defect, unlabelled)


def _kind(sample: Sample, defects: list[str]) -> tuple[str, int]:
    """Name and number of the kind of a sample. A defect may be named "good" or "unlabelled", too."""
    if sample.label is None:
        return "unlabelled", len(defects) + 1
    return (sample.defect, 1 + defects.index(sample.defect)) if sample.label else ("good", 0)


def _bars(values: Float64Array, low: float, high: float, direction: int) -> str:
    """SVG path of a histogram of values (N,); direction 1 is downwards. The largest bin has the full height."""
    if not len(values):
        return ""
    counts, _ = np.histogram(values, _BINS, (low, high))
    width, parts = _PLOT_WIDTH / _BINS, []
    for number in np.flatnonzero(counts).tolist():
        # A single image must be visible beside a thousand.
        height = max(int(counts[number]) / int(counts.max()), 0.06) * (_HALF_HEIGHT - 2) * direction
        parts.append(f"M{number * width:g} {_HALF_HEIGHT}v{height:.1f}h{width:g}v{-height:.1f}z")
    return "".join(parts)
