"""Metrics of the scores and maps of a dataset.

The code knows the `Session` protocol only. So a trained run, a bundle and an engine are measured by the same code on
the same pixels. If a dataset does not allow a metric (no defects, no masks, no threshold), the metric is None and the
reason is given, never a made-up number. A collapsed model is reported as a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgead.evaluation.dataset_scores import Scores, finite_scores, pixels_of
from edgead.scoring import metrics
from edgead.scoring.decision import NOT_FINITE
from edgead.scoring.pixel_histogram import PixelHistogram
from edgead.scoring.threshold import Threshold
from edgead.text import path_text
from edgead.types import BoolArray, Float32Array

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro", "dice")

CHANCE_AUROC = 0.55
"""A model with an image AUROC below this is no better than guessing and is reported as collapsed."""

CONSTANT_SHARE = 1e-5
"""Values are constant if they vary by at most this share of the largest one, about the rounding of float32."""


@dataclass(frozen=True, slots=True)
class DefectResult:
    """Metrics of one kind of defect.

    Attributes:
        defect: Name of the kind.
        images: Number of its images.
        found: Number of its images above the threshold; None without decisions.
        image_auroc: AUROC of its images against all good images; None without good images or finite scores.
    """

    defect: str
    images: int
    found: int | None
    image_auroc: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one session on one dataset.

    Metrics are 0 to 1, higher is better. A metric is None if the dataset does not allow it; `absent` has the reason.

    Attributes:
        good: Number of good images.
        defect: Number of defect images.
        unlabelled: Number of images without a label.
        broken: One line for each skipped file.
        image_auroc: AUROC of scores against labels.
        image_ap: Average precision of scores against labels.
        image_f1_max: Best F1 of scores against labels.
        pixel_auroc: AUROC of maps against masks.
        pixel_ap: Average precision of maps against masks.
        pixel_f1_max: Best F1 of maps against masks.
        aupro: AUPRO of maps against masks, to a false-positive rate of 0.3.
        dice: Dice of maps, cut at the threshold, against masks.
        threshold: Threshold of the decisions.
        false_alarms: Number of good images above the threshold; None without decisions.
        misses: Number of defect images that are not above the threshold; None without decisions.
        defects: Metrics of each kind of defect, sorted by name.
        collapse: Reason why the model has collapsed, None if it has not collapsed.
        absent: Reasons for missing metrics, by "image", "pixel" and "decisions".
    """

    good: int
    defect: int
    unlabelled: int
    broken: tuple[str, ...]
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None
    aupro: float | None
    dice: float | None
    threshold: Threshold | None
    false_alarms: int | None
    misses: int | None
    defects: tuple[DefectResult, ...]
    collapse: str | None
    absent: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; keys are the names of the fields, and kinds of defects have `path_text`."""
        defects = [asdict(found) | {"defect": path_text(found.defect)} for found in self.defects]
        return asdict(self) | {"broken": list(self.broken), "defects": defects}


def evaluate(scores: Scores, threshold: Threshold | None) -> Evaluation:
    """Compute all metrics that labels, masks and threshold allow.

    Images without a label are counted and otherwise left out. Pixels that the model does not inspect are left out.

    Args:
        scores: Scores and maps of a dataset.
        threshold: Threshold of the decisions; None for no decisions.

    Returns:
        Metrics, with a reason for each missing one.

    Raises:
        ImageError: If a mask cannot be read.
    """
    labels = np.array([-1 if s.label is None else s.label for s in scores.samples])
    good, defect, known = labels == 0, labels == 1, labels >= 0
    absent: dict[str, str] = {}
    wrong = int((~finite_scores(scores)).sum())
    not_finite = f"{NOT_FINITE} for {wrong} of {len(labels)} images" if wrong else None
    figures: dict[str, float | None] = dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS)
    if not_finite is not None:
        absent |= dict.fromkeys(("image", "pixel"), not_finite)
    else:
        if good.any() and defect.any():
            figures |= _image_figures(scores.scores[known], defect[known])
        else:
            absent["image"] = f"no image is labelled {'defect' if good.any() else 'good'}"
        pixels, reason = pixels_of(scores)
        if pixels is None:
            absent["pixel"] = reason
        else:
            figures |= _pixel_figures(pixels, threshold)
    above: BoolArray | None = None
    if threshold is None:
        absent["decisions"] = "there is no threshold: edgead build sets one"
    elif not_finite is not None:
        absent["decisions"] = not_finite
    else:
        # In float64, because float32 would round the threshold before the comparison.
        above = scores.scores.astype(np.float64) > threshold.value
    return Evaluation(
        good=int(good.sum()),
        defect=int(defect.sum()),
        unlabelled=int((~known).sum()),
        broken=scores.broken,
        **figures,
        threshold=threshold,
        false_alarms=None if above is None else int((above & good).sum()),
        misses=None if above is None else int((~above & defect).sum()),
        defects=_by_defect(scores, good, above, not wrong),
        collapse=not_finite or _collapse(scores, figures["image_auroc"]),
        absent=absent,
    )


def _image_figures(scores: Float32Array, defect: BoolArray) -> dict[str, float | None]:
    """Metrics of scores (N,) against labels (N,)."""
    return {
        "image_auroc": metrics.auroc(scores, defect),
        "image_ap": metrics.average_precision(scores, defect),
        "image_f1_max": metrics.f1_max(scores, defect),
    }


def _pixel_figures(pixels: PixelHistogram, threshold: Threshold | None) -> dict[str, float | None]:
    """Metrics of the pixels of all maps."""
    return {
        "pixel_auroc": pixels.auroc(),
        "pixel_ap": pixels.average_precision(),
        "pixel_f1_max": pixels.f1_max(),
        "aupro": pixels.aupro(),
        "dice": None if threshold is None else pixels.dice(threshold.value),
    }


def _by_defect(
    scores: Scores, good: BoolArray, above: BoolArray | None, finite: bool
) -> tuple[DefectResult, ...]:
    """Metrics of each kind of defect; `good` and `above` are (N,)."""
    results = []
    for name in sorted({s.defect for s in scores.samples if s.label == 1}):
        here = np.array([s.label == 1 and s.defect == name for s in scores.samples])
        both = good | here
        results.append(
            DefectResult(
                defect=name,
                images=int(here.sum()),
                found=None if above is None else int((above & here).sum()),
                image_auroc=metrics.auroc(scores.scores[both], here[both]) if finite and good.any() else None,
            )
        )
    return tuple(results)


def _collapse(scores: Scores, image_auroc: float | None) -> str | None:
    """Reason why the model has collapsed, else None."""
    largest = max(float(np.abs(anomaly_map).max()) for anomaly_map in scores.maps)
    if max(float(np.ptp(anomaly_map)) for anomaly_map in scores.maps) <= CONSTANT_SHARE * largest:
        return "every anomaly map is constant: student and teacher differ everywhere alike"
    if len(scores.scores) > 1 and np.ptp(scores.scores) <= CONSTANT_SHARE * np.abs(scores.scores).max():
        return "all images have the same score"
    if image_auroc is not None and image_auroc < CHANCE_AUROC:
        return f"image AUROC {image_auroc:.3f} is no better than guessing"
    return None
