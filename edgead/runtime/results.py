"""Decisions on batches of images: read and resized in parallel with the inference, scored, compared with a threshold.

`edgead predict` and `Model.predict` share `predict_batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np

from edgead.errors import EdgeadError
from edgead.imaging.frame import cut_image
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.regions import regions_from_map
from edgead.imaging.view import View
from edgead.runtime.base import Session
from edgead.runtime.framed import infer_images
from edgead.runtime.read_ahead import read_ahead
from edgead.scoring.decision import decide
from edgead.types import Float32Array, Region, UInt8Array, share_of_threshold

ReadImage: TypeAlias = Callable[[], UInt8Array]
"""Function that returns an image, (H, W, 3) uint8 RGB of any size, or raises EdgeadError."""

GIVEN = "given"
"""Source of a threshold that the caller gave."""


@dataclass(frozen=True, slots=True)
class UsedThreshold:
    """The threshold of a decision.

    Attributes:
        part: Name of the part that the threshold belongs to.
        value: Decision threshold.
        source: Command that set the threshold, such as "edgead build" or "edgead threshold --best-f1"; `GIVEN` for a
            threshold that the caller gave.
    """

    part: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Result:
    """The decision on one image.

    Attributes:
        anomaly_score: Maximum of the anomaly map where the image is inspected.
        threshold: Decision threshold that was used: the model's for the part, or the one that the user gave.
        is_anomalous: Whether `anomaly_score > threshold`.
        anomaly_map: (H, W) float32 over the whole image, at about the resolution of the model or, on request, at the
            size of the image; 0 where the image is not inspected.
        regions: Regions of the map above the threshold, in pixels of the image, the largest first; empty if the image
            is good.
        part: Name of the part that the threshold belongs to.
        threshold_source: Command that set the threshold, such as "edgead build" or "edgead threshold --best-f1", or
            "given" for a threshold that the caller gave.
    """

    anomaly_score: float
    threshold: float
    is_anomalous: bool
    anomaly_map: Float32Array
    regions: tuple[Region, ...]
    part: str
    threshold_source: str

    @property
    def share_of_threshold(self) -> float | None:
        """The score divided by the threshold: above 1 is anomalous; None if the threshold is not above 0."""
        return share_of_threshold(self.anomaly_score, self.threshold)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one image of a batch, or the reason why there is none.

    Attributes:
        result: Decision on the image, with a map at the model's size; None if there is none.
        error: Error of reading the image; None if it was read. If there is neither a result nor an error, the map or
            the score is not finite.
        size_px: Height and width of the image; (0, 0) if it was not read.
    """

    result: Result | None
    error: EdgeadError | None
    size_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that was read, at the model's size because larger ones would fill the memory, or its error.

    Attributes:
        framed: Framing and rows of the image; None if it was not read.
        error: Error of reading the image; None if it was read.
        size_px: Height and width of the image; (0, 0) if it was not read.
    """

    framed: tuple[Framing, UInt8Array] | None
    error: EdgeadError | None = None
    size_px: tuple[int, int] = (0, 0)


def predict_batches(
    session: Session,
    size: ModelSize,
    view: View,
    threshold: UsedThreshold,
    batches: Iterable[Sequence[ReadImage]],
) -> Generator[list[Outcome], None, None]:
    """Decide on the images of batches. While one batch is scored, the next ones are read in threads.

    An image that cannot be read is left out of its batch and changes no other batch. So a run that continues at the
    start of a batch gives the same numbers as a run without an interrupt.

    Args:
        session: Opened session.
        size: Image size of the session.
        view: Part of the images that the model inspects.
        threshold: Decision threshold.
        batches: Batches of functions that read the images.

    Yields:
        Outcomes of the images of a batch, in order.

    Raises:
        BackendError: The inference fails.
    """
    loads = ([partial(load_image, read, size, view) for read in batch] for batch in batches)
    with closing(read_ahead(loads)) as loaded:
        for images in loaded:
            yield score_images(session, [(image, threshold) for image in images])


def predict_image(
    session: Session, size: ModelSize, view: View, threshold: UsedThreshold, read: ReadImage
) -> Outcome:
    """Decide on one image without threads, which would take longer than they save.

    Args:
        session: Opened session.
        size: Image size of the session.
        view: Part of the image that the model inspects.
        threshold: Decision threshold.
        read: Function that reads the image.

    Returns:
        Outcome of the image.

    Raises:
        BackendError: The inference fails.
    """
    (outcome,) = score_images(session, [(load_image(read, size, view), threshold)])
    return outcome


def load_image(read: ReadImage, size: ModelSize, view: View) -> LoadedImage:
    """Read an image and bring it to the model's size.

    Args:
        read: Function that reads the image.
        size: Image size of the session.
        view: Part of the image that the model inspects.

    Returns:
        The image, or its error. An image that the view does not fit is an error of the image.
    """
    try:
        image = read()
        framed = cut_image(image, view, size)
    except EdgeadError as error:
        return LoadedImage(None, error)
    return LoadedImage(framed, None, (image.shape[0], image.shape[1]))


def score_images(session: Session, images: Sequence[tuple[LoadedImage, UsedThreshold]]) -> list[Outcome]:
    """Score the images that were read in one batch, and decide on each.

    Args:
        session: Opened session.
        images: Images, and the decision threshold of each.

    Returns:
        Outcomes of the images, in order.

    Raises:
        BackendError: The inference fails.
    """
    numbers = infer_images(session, [image.framed for image, _ in images if image.framed is not None])
    return [
        Outcome(
            None if image.framed is None else _result(*next(numbers), image.framed[0], threshold),
            image.error,
            image.size_px,
        )
        for image, threshold in images
    ]


def map_of_size(anomaly_map: Float32Array, size_px: tuple[int, int]) -> Float32Array:
    """Resize a map bilinearly to the size of its image.

    Args:
        anomaly_map: Map of one image, (h, w) float32.
        size_px: Height and width of the image.

    Returns:
        Map, (height, width) float32; `anomaly_map` itself if it already has the size.
    """
    if anomaly_map.shape == size_px:
        return anomaly_map
    resized = cv2.resize(anomaly_map, size_px[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _result(
    score: np.float32, joined: Float32Array, framing: Framing, threshold: UsedThreshold
) -> Result | None:
    """Decide on one image; None if the map or the score is not finite."""
    anomalous = decide(joined, float(score), threshold.value)
    if anomalous is None:
        return None
    anomaly_map = framing.over_image(joined)
    regions = regions_from_map(anomaly_map, threshold.value, *framing.image_px) if anomalous else ()
    return Result(
        float(score), threshold.value, anomalous, anomaly_map, regions, threshold.part, threshold.source
    )
