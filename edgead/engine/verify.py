"""Does what was built decide as the model it was built from?

Compared on real pictures, not on noise: the held-out good ones, and a damaged twin of each. Good pictures
alone would prove nothing about decisions, because hardly one of them is near the threshold and none is above
it.

What may differ depends on the precision, and `BUDGETS` is the one place that says how much. The errors of lower
precisions are allowed as shares of the threshold, because a difference matters by how it compares with what decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from edgead.errors import VerificationError
from edgead.evaluate import Agreement, compare_sessions
from edgead.runtime.base import Session
from edgead.types import UInt8Array

MAP_TOLERANCE = 1e-4
"""Largest difference allowed between two float32 anomaly maps of one picture."""

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far what was built may be from its reference: see `edgead.evaluate.Agreement`."""

    map_error_max: float
    score_error_max: float
    rank_correlation_min: float
    decision_flips_max: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a precision before threshold and number of pictures are known.

    map_error, score_error: as shares of the reference's threshold. decision_flips: as a share of the pictures, rounded
    down.
    """

    map_error: float
    score_error: float
    rank_correlation_min: float
    decision_flips: float

    def limits(self, threshold: float, pictures: int) -> Limits:
        """The limits for a reference with this threshold, compared on so many pictures."""
        return Limits(
            map_error_max=self.map_error * threshold,
            score_error_max=self.score_error * threshold,
            rank_correlation_min=self.rank_correlation_min,
            decision_flips_max=int(self.decision_flips * pictures),
        )


EXACT = Limits(MAP_TOLERANCE, MAP_TOLERANCE, -1.0, 0)
"""Of float32. Scores so near to each other may swap their ranks: the order is not looked at."""

BUDGETS: Mapping[Precision, Budget] = {
    # Measured: 0.001, 0.0005, 0.999, 0.
    "fp16": Budget(map_error=0.02, score_error=0.01, rank_correlation_min=0.99, decision_flips=0.01),
    # Measured: 0.03, 0.01, 0.90 to 0.93, 0 to 0.025; calibrated on noise 0.04, 0.014, 0.82, 0.025. The order
    # suffers first: eight times too wide a step of one layer's weights left 0.02 to 0.84 of it.
    "int8": Budget(map_error=0.1, score_error=0.05, rank_correlation_min=0.9, decision_flips=0.05),
}
"""Of the lower precisions. Measured with RD on Lite0 at 128 pixels, its student of random weights, on drawn washers."""


def damaged_twins(images: UInt8Array, seed: int = 0) -> UInt8Array:
    """Give every picture a defect that is there for certain, though not one that a line would see.

    images: (N, H, W, 3) uint8; returns as many of the same shape. A rectangle of 1/8 to 1/4 of each side is
    copied from one place of the picture to another, as in CutPaste (Li et al., "CutPaste: Self-Supervised
    Learning for Anomaly Detection and Localization", CVPR 2021), with its colours inverted so that it shows
    on plain surfaces too.
    """
    rng = np.random.default_rng(seed)
    twins: UInt8Array = images.copy()
    _, height, width, _ = images.shape
    for image, twin in zip(images, twins, strict=True):
        tall, wide = rng.integers(height // 8, height // 4 + 1), rng.integers(width // 8, width // 4 + 1)
        (y, to_y), (x, to_x) = rng.integers(0, height - tall + 1, 2), rng.integers(0, width - wide + 1, 2)
        twin[to_y : to_y + tall, to_x : to_x + wide] = 255 - image[y : y + tall, x : x + wide]
    return twins


def verify(
    reference: Session,
    built: Session,
    images: UInt8Array,
    threshold: float,
    limits: Limits = EXACT,
    built_threshold: float | None = None,
) -> Agreement:
    """Compare what was built with its reference, and refuse it where they differ by more than the limits.

    images: (N, H, W, 3) uint8 RGB at the model's size, N >= 1. threshold: decides between good and defect for
    both, or for the reference alone where `built_threshold` is given. Returns how near they are. Raises
    VerificationError when they are not near enough, and what `Session.infer` raises.
    """
    agreement = compare_sessions(reference, built, images, threshold, other_threshold=built_threshold)
    rank = agreement.rank_correlation
    # Written so that a difference that is not a number fails too.
    if not (
        agreement.map_error_max <= limits.map_error_max
        and agreement.score_error_max <= limits.score_error_max
        and (rank is None or rank >= limits.rank_correlation_min)
        and agreement.decision_flips <= limits.decision_flips_max
    ):
        mend = (
            "try other versions of torch and onnxruntime, which 'edgead doctor' shows"
            if limits == EXACT
            else "build in a higher precision, or int8 with another --calibrate-on or --algorithm or with "
            "--quantize student"
        )
        raise VerificationError(
            f"what was built does not decide as the model: on {agreement.n} pictures the maps differ by up "
            f"to {agreement.map_error_max:.2g} (allowed: {limits.map_error_max:.2g}), the scores by "
            f"{agreement.score_error_max:.2g} (allowed: {limits.score_error_max:.2g}), the rank correlation is "
            f"{'undefined' if rank is None else f'{rank:.3f}'} (allowed: {limits.rank_correlation_min:.3g} or "
            f"more) and {agreement.decision_flips} decisions flip (allowed: {limits.decision_flips_max}); "
            f"nothing was written: {mend}"
        )
    return agreement


def table(agreement: Mapping[str, float | None], limits: Mapping[str, float]) -> list[str]:
    """The lines of a table of what was measured and what was allowed, from `asdict` of both."""
    lines = [f"{'':18}{'measured':>10}{'allowed':>12}"]
    for name, sign, limit in (
        ("map_error_max", "<=", "map_error_max"),
        ("score_error_max", "<=", "score_error_max"),
        ("rank_correlation", ">=", "rank_correlation_min"),
        ("decision_flips", "<=", "decision_flips_max"),
    ):
        value = agreement[name]
        measured = "-" if value is None else f"{value:.3g}"
        title = name.removesuffix("_max").replace("_", " ")
        lines.append(f"{title:18}{measured:>10}{f'{sign} {limits[limit]:.3g}':>12}")
    return lines
