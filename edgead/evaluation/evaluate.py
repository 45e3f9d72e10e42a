"""Score a dataset through any session, and say how good the scores and the maps are.

Works on the `Session` protocol alone, so a trained run, a bundle and an engine are measured by the same code
on the same pixels. A metric that a dataset cannot give (no defects, no masks, no threshold) is None with the
reason beside it, never a made-up number, and a model that collapsed is reported as a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgead.data import Sample, load_images, read_mask
from edgead.errors import DataError
from edgead.files.progress import ScoringState, log_state
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.scoring import metrics
from edgead.scoring.threshold import Threshold
from edgead.types import BoolArray, Float32Array

_log = logging.getLogger(__name__)

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro", "dice")

CHANCE_AUROC = 0.55
"""An image AUROC below this is no better than guessing: the model is reported as collapsed."""

CONSTANT_SHARE = 1e-5
"""Values that vary by no more than this share of the largest are constant: float32 rounds about as much."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a session said of N images.

    samples: those that could be read. scores: (N,) float32. maps: (N, H, W) float32. broken: one line per
    skipped file.
    """

    samples: tuple[Sample, ...]
    scores: Float32Array
    maps: Float32Array
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DefectResult:
    """One kind of defect: images, how many are above the threshold, AUROC against all good images."""

    defect: str
    images: int
    found: int | None
    image_auroc: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one dataset and one session; None where a figure cannot be given, with why in `absent`.

    Metrics are 0 to 1, higher is better. image_*: of scores against labels. pixel_* and aupro (false-positive
    rate to 0.3): of maps against masks. dice: of the maps cut at the threshold. false_alarms: good images
    above the threshold. misses: defects not above it. collapse: why the model counts as failed, None when it
    does not.
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
        """Give plain JSON values; keys are the field names."""
        return {**asdict(self), "broken": list(self.broken), "defects": [asdict(d) for d in self.defects]}


def score_dataset(
    session: Session,
    samples: Sequence[Sample],
    size: ModelSize,
    skip_broken: bool = False,
    batch_size: int = 8,
) -> Scores:
    """Read the images of `samples` at the model's size and score them all.

    Logs its state after every batch. Raises DataError when there is no sample or not one can be read, ImageError for
    a broken file unless `skip_broken`, and what
    `Session.infer` raises.
    """
    if not samples:
        raise DataError("no images to score: the dataset's test folder is empty or missing")
    loaded = load_images(samples, size, skip_broken)
    n = len(loaded.images)
    scores, maps = np.empty(n, np.float32), np.empty((n, size.height_px, size.width_px), np.float32)
    for start in range(0, n, batch_size):
        part = slice(start, min(start + batch_size, n))
        prediction = session.infer(loaded.images[part])
        scores[part], maps[part] = prediction.anomaly_score, prediction.anomaly_map[:, 0]
        log_state(_log, ScoringState(part.stop, n))
    return Scores(loaded.samples, scores, maps, loaded.broken)


def evaluate(scores: Scores, threshold: Threshold | None) -> Evaluation:
    """Compute every figure that labels, masks and threshold allow.

    Images without a label are counted and otherwise left out. Masks are read and resized to the maps.
    Raises ImageError for a mask that cannot be read.
    """
    labels = np.array([-1 if s.label is None else s.label for s in scores.samples])
    good, defect = labels == 0, labels == 1
    known = good | defect
    absent: dict[str, str] = {}
    finite = bool(np.isfinite(scores.scores).all() and np.isfinite(scores.maps).all())
    figures: dict[str, float | None] = dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS)
    if not finite:
        absent |= {
            "image": "scores or maps are not finite numbers",
            "pixel": "scores or maps are not finite numbers",
        }
    else:
        if good.any() and defect.any():
            figures |= _image_figures(scores.scores[known], defect[known])
        else:
            absent["image"] = f"no image is labelled {'defect' if good.any() else 'good'}"
        masks, reason = masks_of([s for s in scores.samples if s.label is not None], scores.maps.shape[1:])
        if masks is None:
            absent["pixel"] = reason
        else:
            figures |= _pixel_figures(scores.maps[known], masks, threshold)
    above: BoolArray | None = None
    if threshold is None:
        absent["decisions"] = "there is no threshold: edgead build sets one"
    else:
        # In float64, so that the threshold is not rounded before it is compared.
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
        defects=_by_defect(scores, good, above, finite),
        collapse=_collapse(scores, figures["image_auroc"], finite),
        absent=absent,
    )


def masks_of(samples: Sequence[Sample], shape: tuple[int, int]) -> tuple[BoolArray | None, str]:
    """Give the masks of labelled samples, (N, H, W) bool at `shape`; or None, and why there are none."""
    missing = sum(s.label == 1 and s.mask_path is None for s in samples)
    if missing:
        return None, f"{missing} of {sum(s.label == 1 for s in samples)} defect images have no mask"
    masks = np.zeros((len(samples), *shape), dtype=np.bool_)
    for row, sample in zip(masks, samples, strict=True):
        row[:] = read_mask(sample, shape)
    if not masks.any() or masks.all():
        return None, "the masks mark no pixel" if not masks.any() else "the masks mark every pixel"
    return masks, ""


def _image_figures(scores: Float32Array, defect: BoolArray) -> dict[str, float | None]:
    return {
        "image_auroc": metrics.auroc(scores, defect),
        "image_ap": metrics.average_precision(scores, defect),
        "image_f1_max": metrics.f1_max(scores, defect),
    }


def _pixel_figures(
    maps: Float32Array, masks: BoolArray, threshold: Threshold | None
) -> dict[str, float | None]:
    return {
        "pixel_auroc": metrics.auroc(maps, masks),
        "pixel_ap": metrics.average_precision(maps, masks),
        "pixel_f1_max": metrics.f1_max(maps, masks),
        "aupro": metrics.aupro(maps, masks),
        "dice": None if threshold is None else metrics.dice(maps, masks, threshold.value),
    }


def _by_defect(
    scores: Scores, good: BoolArray, above: BoolArray | None, finite: bool
) -> tuple[DefectResult, ...]:
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


def _collapse(scores: Scores, image_auroc: float | None, finite: bool) -> str | None:
    """Say in a sentence why the model counts as collapsed, None when it does not."""
    if not finite:
        return "scores or maps are not finite numbers"
    if float(np.ptp(scores.maps, axis=(1, 2)).max()) <= CONSTANT_SHARE * float(np.abs(scores.maps).max()):
        return "every anomaly map is constant: student and teacher differ everywhere alike"
    if len(scores.scores) > 1 and np.ptp(scores.scores) <= CONSTANT_SHARE * np.abs(scores.scores).max():
        return "all images have the same score"
    if image_auroc is not None and image_auroc < CHANCE_AUROC:
        return f"image AUROC {image_auroc:.3f} is no better than guessing"
    return None
