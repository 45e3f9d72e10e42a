"""Images of a report: defects with the highest and lowest scores, and good parts with the highest scores.

A card shows one image: on the left the image at the model's size with the outline of the true defect, on the right
its heat map. Images are chosen by score alone, so nobody can select the best-looking ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgead.data import Sample
from edgead.evaluation.dataset_scores import Scores, finite_scores
from edgead.evaluation.explorer import outcome
from edgead.evaluation.html import image_uri
from edgead.evaluation.pixels import image_on_map, mask_on_map, reduced
from edgead.imaging.framing import Framing
from edgead.imaging.heatmap import overlay
from edgead.scoring.decision import decide
from edgead.scoring.threshold import Threshold
from edgead.types import UInt8Array

IMAGES_PER_GALLERY = 6
LONGEST_SIDE_PX = 1024
"""Cards of larger maps are reduced, because a page holds all cards."""

_MASK_COLOUR = (60, 230, 90)
_LEGEND_SHAPE = (24, 480)


@dataclass(frozen=True, slots=True)
class Card:
    """One image on the page.

    Attributes:
        index: Position of the image in the scores.
        image: Data URI of the image with the outline of the true defect.
        heat_map: Data URI of the heat map.
        name: Name of the file and its folder.
        kind: "good", the name of the defect, or "unlabelled".
        score: Anomaly score.
        outcome: See `edgead.evaluation.explorer.outcome`; None without a threshold.
        right: Whether the decision agrees with the label; None without a threshold or a label.
    """

    index: int
    image: str
    heat_map: str
    name: str
    kind: str
    score: float
    outcome: str | None
    right: bool | None


@dataclass(frozen=True, slots=True)
class Gallery:
    """A row of cards under a title.

    Attributes:
        title: Heading of the row.
        cards: Cards in the order of the page.
    """

    title: str
    cards: tuple[Card, ...]


def galleries(scores: Scores, threshold: Threshold | None) -> list[Gallery]:
    """Choose images by their scores and make their cards.

    Args:
        scores: Scores and maps of a dataset.
        threshold: Threshold of the decisions and of the colour scale; None for no decisions.

    Returns:
        Galleries that have an image. Each image is in one gallery at most. The list is empty if a map or a score is not
        finite.

    Raises:
        ImageError: If an image file can no longer be read.
    """
    if not finite_scores(scores).all():
        return []
    order = [int(i) for i in np.argsort(-scores.scores, kind="stable")]
    by_label = {label: [i for i in order if scores.samples[i].label == label] for label in (0, 1, None)}
    defects = by_label[1]
    clearest = defects[: min(IMAGES_PER_GALLERY, (len(defects) + 1) // 2)]
    hardest = defects[len(clearest) :][::-1][:IMAGES_PER_GALLERY]
    chosen = (
        ("Defects with the highest scores", clearest),
        ("Defects with the lowest scores: missed first", hardest),
        ("Good parts with the highest scores: false alarms first", by_label[0][:IMAGES_PER_GALLERY]),
        ("Images without a label, highest scores first", by_label[None][:IMAGES_PER_GALLERY]),
    )
    return [
        Gallery(title, tuple(_card(scores, index, threshold) for index in indices))
        for title, indices in chosen
        if indices
    ]


def colour_scale(scores: Scores, threshold: Threshold | None) -> float:
    """Return the map value above which the heat maps of a page are coloured.

    Args:
        scores: Scores and maps of a dataset.
        threshold: Threshold of the decisions, or None.

    Returns:
        The threshold. Without a threshold, the highest score of a good image; without good images, the highest score.
    """
    if threshold is not None:
        return threshold.value
    good = [float(v) for v, s in zip(scores.scores, scores.samples, strict=True) if s.label == 0]
    return max(good) if good else float(scores.scores.max())


def colour_legend() -> str:
    """Return the colours of a heat map, from 0 to twice the threshold, as the data URI of an image."""
    height, width = _LEGEND_SHAPE
    ramp = np.repeat(np.linspace(0.0, 2.0, width, dtype=np.float32)[None], height, axis=0)
    return image_uri(overlay(np.full((height, width, 3), 150, np.uint8), ramp, 1.0))


def _card(scores: Scores, index: int, threshold: Threshold | None) -> Card:
    """Card of the image with this index."""
    sample, score, whole = scores.samples[index], float(scores.scores[index]), scores.maps[index]
    anomaly_map = reduced(whole, math.ceil(max(whole.shape) / LONGEST_SIDE_PX))
    image = image_on_map(sample, anomaly_map.shape, scores.framing(index))
    is_anomalous = None if threshold is None else decide(anomaly_map, score, threshold.value)
    return Card(
        index=index,
        image=image_uri(_with_outline(image, sample, scores.framing(index))),
        heat_map=image_uri(overlay(image, anomaly_map, colour_scale(scores, threshold))),
        name=f"{sample.path.parent.name}/{sample.path.name}",
        kind="unlabelled" if sample.label is None else sample.defect,
        score=score,
        outcome=None if is_anomalous is None else outcome(sample.label, is_anomalous),
        right=None if is_anomalous is None or sample.label is None else is_anomalous == (sample.label == 1),
    )


def _with_outline(image: UInt8Array, sample: Sample, framing: Framing | None) -> UInt8Array:
    """Draw the outline of the true defect on a copy, if the sample has a mask."""
    if sample.label != 1 or sample.mask_path is None:
        return image
    mask = mask_on_map(sample, image.shape[:2], framing).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, min(image.shape[:2]) // 200)
    return np.asarray(cv2.drawContours(image.copy(), outlines, -1, _MASK_COLOUR, thickness), dtype=np.uint8)
