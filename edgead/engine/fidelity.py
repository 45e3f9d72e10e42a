"""Compares a graph or an engine with the model that it was built from, and rejects it if it decides differently.

The comparison runs on real images: the held-out good images, and a synthetic defect made from each. Good images alone
would prove nothing about decisions, because almost none is near the threshold and none is above it. If a dataset has
labelled images, the AUROC on them is compared too.

Each precision has its own tolerance, which the target sets. Errors are relative to the threshold, because the
threshold decides how much a difference matters: see `edgead.runtime.agreement.Fidelity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from edgead.errors import InputError, VerificationError
from edgead.runtime.agreement import Fidelity, compare_sessions
from edgead.runtime.base import Session
from edgead.types import UInt8Array

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
    """

    map_error_max: float
    score_error_max: float
    rank_correlation_min: float
    decision_flips_max: int
    auroc_loss_max: float


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

    def limits(self, images: int) -> ToleranceLimits:
        """Compute the limits of a comparison.

        Args:
            images: Number of images that are compared.
        """
        return ToleranceLimits(
            map_error_max=self.map_error,
            score_error_max=self.score_error,
            rank_correlation_min=self.rank_correlation_min,
            decision_flips_max=int(self.decision_flips * images),
            auroc_loss_max=self.auroc_loss,
        )


def exact_limits(threshold: float) -> ToleranceLimits:
    """Compute the limits for two float32 models.

    The rank correlation has no limit, because scores that are this close to each other may swap ranks.

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
        rank, change = self.fidelity.rank_correlation, self.auroc_change
        return (
            self.fidelity.map_error_max <= limits.map_error_max
            and self.fidelity.score_error_max <= limits.score_error_max
            and (rank is None or rank >= limits.rank_correlation_min)
            and self.fidelity.decision_flips <= limits.decision_flips_max
            and (change is None or change >= -limits.auroc_loss_max)
        )

    def measures(self) -> dict[str, float | None]:
        """Return the measures that `table` prints and a manifest holds, as JSON values."""
        found: dict[str, float | None] = asdict(self.fidelity)
        # JSON has no infinity. A comparison with an infinite error has failed, so the value does not matter.
        finite = {
            name: value if value is None or np.isfinite(value) else None for name, value in found.items()
        }
        return {**finite, "auroc": self.auroc, "auroc_change": self.auroc_change}


def verify(
    reference: Session,
    built: Session,
    images: UInt8Array,
    threshold: float,
    limits: ToleranceLimits | None = None,
    part: str | None = None,
) -> FidelityReport:
    """Compare a built graph or engine with its reference, and reject it if a difference is over its limit.

    Args:
        reference: Session of the reference.
        built: Session of the built graph or engine.
        images: Images at the model's size, (N, H, W, 3) uint8 RGB, N >= 1.
        threshold: Threshold between good and defect, for both sessions.
        limits: Limits of the comparison; `exact_limits` by default.
        part: Name of the part for the message, if the model has several.

    Returns:
        The differences.

    Raises:
        VerificationError: If a difference is over its limit.
        EdgeadError: Any error that `Session.infer` raises.
    """
    comparison = FidelityReport(compare_sessions(reference, built, images, threshold))
    require(
        comparison,
        exact_limits(threshold) if limits is None else limits,
        "try other versions of torch and onnxruntime, which 'edgead doctor' shows",
        part,
    )
    return comparison


def require(comparison: FidelityReport, limits: ToleranceLimits, hint: str, part: str | None = None) -> None:
    """Reject a comparison that is over a limit.

    Args:
        comparison: Differences from the reference.
        limits: Limits of the comparison.
        hint: Hint of the error.
        part: Name of the part for the message, if the model has several.

    Raises:
        VerificationError: If a difference is over its limit.
    """
    if not comparison.holds(limits):
        raise VerificationError(
            f"the result does not decide as the model{'' if part is None else f' on {part}'}, so nothing was written "
            f"({described(comparison, limits)})",
            hint=hint,
        )


def require_each(compared: Mapping[str, tuple[FidelityReport, ToleranceLimits]], hint: str) -> None:
    """Reject a model if the comparison of one of its parts is over a limit.

    Args:
        compared: Differences and limits by part.
        hint: Hint of the error.

    Raises:
        VerificationError: If a difference is over its limit, as for `require`.
    """
    for part, (comparison, limits) in compared.items():
        require(comparison, limits, hint, part if len(compared) > 1 else None)


def described(comparison: FidelityReport, limits: ToleranceLimits) -> str:
    """Describe measures and their limits in one sentence.

    Args:
        comparison: Differences from the reference.
        limits: Limits of the comparison.
    """
    fidelity, rank, change = (
        comparison.fidelity,
        comparison.fidelity.rank_correlation,
        comparison.auroc_change,
    )
    return (
        f"on {fidelity.n} images the maps differ by up to {fidelity.map_error_max:.3g} of the threshold (allowed: "
        f"{limits.map_error_max:.3g}), the scores by {fidelity.score_error_max:.3g} (allowed: "
        f"{limits.score_error_max:.3g}), the rank correlation is {'undefined' if rank is None else f'{rank:.3f}'} "
        f"(allowed: {limits.rank_correlation_min:.3g} or more) and {fidelity.decision_flips} decisions flip (allowed: "
        f"{limits.decision_flips_max})"
        + (
            ""
            if change is None
            else f", AUROC changes by {change:+.4f} (allowed: {-limits.auroc_loss_max:g} or more)"
        )
    )


def judgement(comparison: FidelityReport, limits: ToleranceLimits) -> dict[str, Any]:
    """Return the record of the comparison of one part for a manifest, as JSON values.

    Args:
        comparison: Differences from the reference.
        limits: Limits of the comparison.
    """
    return {**comparison.measures(), "limits": asdict(limits)}


def table(measures: Mapping[str, float | None], limits: Mapping[str, float]) -> list[str]:
    """Format measures and limits as the lines of a table.

    Args:
        measures: Measures, from `FidelityReport.measures`.
        limits: Limits, from `asdict(ToleranceLimits)`.

    Returns:
        A heading, and one line for each measure.
    """
    lines = [f"{'':18}{'measured':>10}{'allowed':>12}"]
    for name, sign, limit in (
        ("map_error_max", "<=", limits["map_error_max"]),
        ("score_error_max", "<=", limits["score_error_max"]),
        ("rank_correlation", ">=", limits["rank_correlation_min"]),
        ("decision_flips", "<=", limits["decision_flips_max"]),
        ("auroc_change", ">=", -limits["auroc_loss_max"]),
    ):
        value = measures[name]
        measured = "-" if value is None else f"{value:.3g}"
        title = name.removesuffix("_max").replace("_", " ").replace("auroc", "AUROC")
        lines.append(f"{title:18}{measured:>10}{f'{sign} {limit:.3g}':>12}")
    return lines
