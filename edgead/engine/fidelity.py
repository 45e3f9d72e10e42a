"""Differences of a graph or an engine from the model that it was built from, and the tolerances for them.

The comparison runs on real images: the held-out good images, and a synthetic defect made from each. Good images alone
would prove nothing about decisions, because almost none is near the threshold and none is above it. If a dataset has
labelled images, the AUROC on them is compared too.

Each precision has its own tolerance, which the target sets. Errors are relative to the threshold, because the
threshold decides how much a difference matters: see `edgead.runtime.agreement.Fidelity`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from edgead.errors import InputError
from edgead.runtime.agreement import Fidelity

MAP_TOLERANCE = 1e-4
"""Largest allowed difference between two float32 maps of one image, at values up to the threshold."""

SHARE_TOLERANCE = 0.01
"""The same limit relative to the threshold: all values of a map that is a product of scales can be small."""

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class ToleranceLimits:
    """Limits of a comparison with the reference, see `FidelityReport`.

    Attributes:
        map_error_max: Largest error of the anomaly maps, relative as in `Fidelity`.
        score_error_max: Largest error of the anomaly scores, relative as in `Fidelity`.
        rank_correlation_min: Smallest rank correlation of the scores, -1 to 1.
        decision_flips_max: Largest number of images that change sides of the threshold.
        auroc_loss_max: Largest loss of image AUROC on labelled images.
        factors: Number of scales that the maps multiply: errors are measured on their root of this degree, see
            `Fidelity`. 1 for maps that add their scales.
    """

    map_error_max: float
    score_error_max: float
    rank_correlation_min: float
    decision_flips_max: int
    auroc_loss_max: float
    factors: int = 1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits of a precision, independent of the number of images.

    Attributes:
        map_error: Largest error of the anomaly maps, relative as in `Fidelity`, 0 to 10.
        score_error: Largest error of the anomaly scores, relative as in `Fidelity`, 0 to 10.
        rank_correlation_min: Smallest rank correlation of the scores, -1 to 1.
        decision_flips: Largest share of images that change sides of the threshold, 0 to 10. The number of images is
            rounded down.
        auroc_loss: Largest loss of image AUROC on labelled images, if there are any, 0 to 10.

    Raises:
        InputError: If a number is out of range.
    """

    map_error: float
    score_error: float
    rank_correlation_min: float
    decision_flips: float
    auroc_loss: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            smallest, largest = (-1.0, 1.0) if name == "rank_correlation_min" else (0.0, 10.0)
            if not smallest <= value <= largest:
                raise InputError(f"tolerance {name} is {value}", hint=f"give {smallest:g} to {largest:g}")

    def limits(self, images: int, factors: int = 1) -> ToleranceLimits:
        """Compute the limits of a comparison.

        Args:
            images: Number of images that are compared.
            factors: Number of scales that the maps multiply, see `ToleranceLimits`.
        """
        return ToleranceLimits(
            map_error_max=self.map_error,
            score_error_max=self.score_error,
            rank_correlation_min=self.rank_correlation_min,
            decision_flips_max=int(self.decision_flips * images),
            auroc_loss_max=self.auroc_loss,
            factors=factors,
        )

    def halved(self) -> Tolerance:
        """Return the tolerance with half of each limit; the rank correlation is half as far from 1."""
        return Tolerance(
            map_error=self.map_error / 2.0,
            score_error=self.score_error / 2.0,
            rank_correlation_min=(1.0 + self.rank_correlation_min) / 2.0,
            decision_flips=self.decision_flips / 2.0,
            auroc_loss=self.auroc_loss / 2.0,
        )


def exact_limits(threshold: float) -> ToleranceLimits:
    """Compute the limits for two float32 models.

    The rank correlation has no limit, because scores that are this close to each other may swap ranks. Products of
    scales are compared as they are, because float32 errs in the last bits only.

    Args:
        threshold: Threshold that the limits are relative to.
    """
    tolerance = MAP_TOLERANCE / max(threshold, MAP_TOLERANCE / SHARE_TOLERANCE)
    return ToleranceLimits(tolerance, tolerance, -1.0, 0, 1.0)


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """Differences between a built graph or engine and its reference.

    Attributes:
        fidelity: Differences on the validation images.
        reference_auroc: Image AUROC of the reference on labelled images; None without labelled images.
        auroc: Image AUROC of the built graph or engine on labelled images; None without labelled images.
    """

    fidelity: Fidelity
    reference_auroc: float | None = None
    auroc: float | None = None

    @property
    def auroc_change(self) -> float | None:
        """Change of the image AUROC, negative for a loss; None without labelled images."""
        if self.auroc is None or self.reference_auroc is None:
            return None
        return self.auroc - self.reference_auroc

    def holds(self, limits: ToleranceLimits) -> bool:
        """Check whether every measure is within its limit. NaN never is.

        Args:
            limits: Limits of the comparison.
        """
        return not self.over(limits)

    def over(self, limits: ToleranceLimits) -> tuple[str, ...]:
        """List the measures that are not within their limits.

        Args:
            limits: Limits of the comparison.

        Returns:
            Names of measures, as in `measures`.
        """
        rank, change = self.fidelity.rank_correlation, self.auroc_change
        within = {
            "map_error_max": self.fidelity.map_error_max <= limits.map_error_max,
            "score_error_max": self.fidelity.score_error_max <= limits.score_error_max,
            "rank_correlation": rank is None or rank >= limits.rank_correlation_min,
            "decision_flips": self.fidelity.decision_flips <= limits.decision_flips_max,
            "auroc_change": change is None or change >= -limits.auroc_loss_max,
        }
        return tuple(name for name, holds in within.items() if not holds)

    def harm(self, measure: str) -> float:
        """Return a measure as a number that is larger for a worse agreement.

        Args:
            measure: Name of a measure, as in `over`.

        Returns:
            The measure, or its negative if a larger one is better; the smallest number if it is not defined.
        """
        value = {**asdict(self.fidelity), "auroc_change": self.auroc_change}[measure]
        if value is None:
            return -np.inf
        return float(-value if measure in ("rank_correlation", "auroc_change") else value)

    def measures(self) -> dict[str, float | None]:
        """Return the measures that a table shows and a manifest holds, as JSON values."""
        found: dict[str, float | None] = asdict(self.fidelity)
        # JSON has no infinity. A comparison with an infinite error has failed, so the value does not matter.
        finite = {
            name: value if value is None or np.isfinite(value) else None for name, value in found.items()
        }
        return {**finite, "auroc": self.auroc, "auroc_change": self.auroc_change}


def judgement(comparison: FidelityReport, limits: ToleranceLimits) -> dict[str, Any]:
    """Return the record of the comparison of one part for a manifest, as JSON values.

    Args:
        comparison: Differences from the reference.
        limits: Limits of the comparison.
    """
    return {**comparison.measures(), "limits": asdict(limits)}
