"""The float32 graph that candidates are compared with, on the validation images of each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from edgead.engine.fidelity import FidelityReport, Tolerance, ToleranceLimits
from edgead.engine.validation_images import ValidationImages
from edgead.runtime.agreement import compare_sessions
from edgead.runtime.base import Session
from edgead.scoring.threshold import Threshold
from edgead.types import Float64Array

Compared: TypeAlias = Mapping[str, tuple[FidelityReport, ToleranceLimits]]
"""Differences from the reference and their limits, by part."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparison of a graph or engine with its reference.

    Attributes:
        scores: Scores of the held-out good images by part, each (N,) float64, cross-fitted if the part is.
        thresholds: Thresholds on these scores, by part.
        compared: Differences from the reference and their limits, by part.
    """

    scores: Mapping[str, Float64Array]
    thresholds: Mapping[str, Threshold]
    compared: Compared

    @property
    def holds(self) -> bool:
        """Whether all differences are within their limits, on every part."""
        return all(comparison.holds(limits) for comparison, limits in self.compared.values())


class Reference:
    """Float32 graph that candidates are compared with.

    Args:
        session: Session of the graph, open as long as this object is used.
        thresholds: Thresholds of the graph by part.
        validation_images: Validation images by part.
        factors: Number of scales that the maps multiply, see `ToleranceLimits`.

    Attributes:
        thresholds: Thresholds of the graph by part.
        validation_images: Validation images by part.
    """

    def __init__(
        self,
        session: Session,
        thresholds: Mapping[str, Threshold],
        validation_images: Mapping[str, ValidationImages],
        factors: int,
    ) -> None:
        self.thresholds, self.validation_images = thresholds, validation_images
        self._session, self._factors = session, factors
        self._aurocs = {part: of_part.auroc(session) for part, of_part in validation_images.items()}

    def judge(self, session: Session, tolerance: Tolerance) -> Judged:
        """Compare a graph or engine with the reference; each decides by the thresholds of its own scores.

        Args:
            session: Session of the graph or engine.
            tolerance: Tolerance of its precision.

        Returns:
            The comparison.

        Raises:
            BackendError: If a session fails.
        """
        scores, thresholds, compared = {}, {}, {}
        for part, of_part in self.validation_images.items():
            scores[part] = of_part.scores(session)
            thresholds[part] = of_part.threshold(scores[part])
            fidelity = compare_sessions(
                self._session,
                session,
                of_part.all,
                self.thresholds[part].value,
                other_threshold=thresholds[part].value,
                factors=self._factors,
            )
            reference_auroc = self._aurocs[part]
            auroc = None if reference_auroc is None else of_part.auroc(session)
            limits = tolerance.limits(fidelity.n, self._factors)
            compared[part] = (FidelityReport(fidelity, reference_auroc, auroc), limits)
        return Judged(scores, thresholds, compared)
