"""Does what was built decide as the model it was built from?

Compared on real images, not on noise: the held-out good ones, and a synthetic defect made from each. Good images
alone would prove nothing about decisions, because hardly one of them is near the threshold and none is above
it. Where a dataset has labelled images, the AUROC on them is compared too.

What may differ depends on the precision, and a target says how much. Errors are shares of the threshold, because a
difference matters by how it compares with what decides: see `edgead.runtime.agreement.Fidelity`.
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
"""Largest difference allowed between two float32 maps of one image, where they are at the threshold or below it."""

SHARE_TOLERANCE = 0.01
"""The same as a share of the threshold: maps that are products of scales can be small as a whole."""

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class ToleranceLimits:
    """How far what was built may be from its reference: see `FidelityReport`; errors as `Fidelity` has them."""

    map_error_max: float
    score_error_max: float
    rank_correlation_min: float
    decision_flips_max: int
    auroc_loss_max: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits of a precision before the number of images is known.

    map_error, score_error: as shares of the reference's threshold, or of what is above it. decision_flips: as a share
    of the images, rounded down. auroc_loss: of the labelled images, where there are such. Raises InputError for a
    number out of range.
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
                raise InputError(f"tolerance {name} is {value}: give {smallest:g} to {largest:g}")

    def limits(self, images: int) -> ToleranceLimits:
        """The limits of a comparison on so many images."""
        return ToleranceLimits(
            map_error_max=self.map_error,
            score_error_max=self.score_error,
            rank_correlation_min=self.rank_correlation_min,
            decision_flips_max=int(self.decision_flips * images),
            auroc_loss_max=self.auroc_loss,
        )


def exact_limits(threshold: float) -> ToleranceLimits:
    """Of float32 on one backend. Scores so near to each other may swap their ranks: the order is not looked at."""
    tolerance = MAP_TOLERANCE / max(threshold, MAP_TOLERANCE / SHARE_TOLERANCE)
    return ToleranceLimits(tolerance, tolerance, -1.0, 0, 1.0)


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """How far what was built is from its reference.

    fidelity: on the validation images, see `edgead.runtime.agreement.Fidelity`. reference_auroc, auroc: image AUROC of
    both on labelled images; None where there are none.
    """

    fidelity: Fidelity
    reference_auroc: float | None = None
    auroc: float | None = None

    @property
    def auroc_change(self) -> float | None:
        """Below zero for a loss; None without labels."""
        if self.auroc is None or self.reference_auroc is None:
            return None
        return self.auroc - self.reference_auroc

    def holds(self, limits: ToleranceLimits) -> bool:
        """Whether every measure is within its limit; one that is no number is not."""
        rank, change = self.fidelity.rank_correlation, self.auroc_change
        return (
            self.fidelity.map_error_max <= limits.map_error_max
            and self.fidelity.score_error_max <= limits.score_error_max
            and (rank is None or rank >= limits.rank_correlation_min)
            and self.fidelity.decision_flips <= limits.decision_flips_max
            and (change is None or change >= -limits.auroc_loss_max)
        )

    def measures(self) -> dict[str, float | None]:
        """What `table` shows and a manifest keeps, as plain JSON values."""
        found: dict[str, float | None] = asdict(self.fidelity)
        # JSON has no infinity; what is none has failed anyway.
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
    """Compare what was built with its reference, and refuse it where they differ by more than the limits.

    images: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. threshold: decides between good and defect for
    both. limits: `exact_limits` where they are left out. part: as for `require`. Returns how near they are. Raises
    VerificationError when they are not near enough, and what `Session.infer` raises.
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
    """Raise VerificationError, one line that ends in the hint, unless the comparison holds.

    part: whose images were compared, where the model knows several.
    """
    if not comparison.holds(limits):
        raise VerificationError(
            f"what was built does not decide as the model{'' if part is None else f' on {part}'}: "
            f"{described(comparison, limits)}; nothing was written: {hint}"
        )


def require_each(compared: Mapping[str, tuple[FidelityReport, ToleranceLimits]], hint: str) -> None:
    """`require` for every part of a model."""
    for part, (comparison, limits) in compared.items():
        require(comparison, limits, hint, part if len(compared) > 1 else None)


def described(comparison: FidelityReport, limits: ToleranceLimits) -> str:
    """Measures and limits in a sentence."""
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
    """What a manifest keeps of the comparison on one part's images, as plain JSON values."""
    return {**comparison.measures(), "limits": asdict(limits)}


def table(measures: Mapping[str, float | None], limits: Mapping[str, float]) -> list[str]:
    """The lines of a table of what was measured and allowed, from `FidelityReport.measures` and
    `asdict(ToleranceLimits)`.
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
