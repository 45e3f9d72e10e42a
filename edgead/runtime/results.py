"""Decisions on batches of images: read and resized in parallel with the inference, scored, compared with a threshold.

`edgead predict` and `Model.predict` share `predict_batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np

from edgead.errors import EdgeadError
from edgead.imaging.preprocess import ModelSize, resize_to_model
from edgead.imaging.regions import regions_from_map
from edgead.runtime.base import Session
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
        anomaly_score: Maximum of the anomaly map.
        threshold: Decision threshold that was used: the model's for the part, or the one that the user gave.
        is_anomalous: Whether `anomaly_score > threshold`.
        anomaly_map: (H, W) float32, at the model's size or, on request, at the size of the image.
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
class _Loaded:
    """An image that was read, at the model's size because larger ones would fill the memory, or its error."""

    resized: UInt8Array | None
    error: EdgeadError | None = None
    size_px: tuple[int, int] = (0, 0)


def predict_batches(
    session: Session,
    size: ModelSize,
    threshold: UsedThreshold,
    batches: Iterable[Sequence[ReadImage]],
) -> Generator[list[Outcome], None, None]:
    """Decide on the images of batches. While one batch is scored, the next ones are read in threads.

    An image that cannot be read is left out of its batch and changes no other batch. So a run that continues at the
    start of a batch gives the same numbers as a run without an interrupt.

    Args:
        session: Opened session.
        size: Image size of the session.
        threshold: Decision threshold.
        batches: Batches of functions that read the images.

    Yields:
        Outcomes of the images of a batch, in order.

    Raises:
        BackendError: The inference fails.
    """
    loads = ([partial(_load, read, size) for read in batch] for batch in batches)
    with closing(read_ahead(loads)) as loaded:
        for images in loaded:
            yield _scored(session, threshold, images)


def predict_image(session: Session, size: ModelSize, threshold: UsedThreshold, read: ReadImage) -> Outcome:
    """Decide on one image without threads, which would take longer than they save.

    Args:
        session: Opened session.
        size: Image size of the session.
        threshold: Decision threshold.
        read: Function that reads the image.

    Returns:
        Outcome of the image.

    Raises:
        BackendError: The inference fails.
    """
    (outcome,) = _scored(session, threshold, [_load(read, size)])
    return outcome


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


def _load(read: ReadImage, size: ModelSize) -> _Loaded:
    """Read an image and resize it to the model's size."""
    try:
        image = read()
    except EdgeadError as error:
        return _Loaded(None, error)
    return _Loaded(resize_to_model(image, size), None, (image.shape[0], image.shape[1]))


def _scored(session: Session, threshold: UsedThreshold, images: Sequence[_Loaded]) -> list[Outcome]:
    """Score the images that were read in one batch, and decide on each."""
    readable = [image.resized for image in images if image.resized is not None]
    numbers: Iterator[tuple[np.float32, Float32Array]] = iter(())
    if readable:
        prediction = session.infer(np.stack(readable))
        numbers = zip(prediction.anomaly_score, prediction.anomaly_map[:, 0], strict=True)
    return [
        Outcome(
            None if image.resized is None else _result(*next(numbers), image.size_px, threshold),
            image.error,
            image.size_px,
        )
        for image in images
    ]


def _result(
    score: np.float32, anomaly_map: Float32Array, size_px: tuple[int, int], threshold: UsedThreshold
) -> Result | None:
    """Decide on one image; None if the map or the score is not finite."""
    anomalous = decide(anomaly_map, float(score), threshold.value)
    if anomalous is None:
        return None
    regions = regions_from_map(anomaly_map, threshold.value, *size_px) if anomalous else ()
    return Result(
        float(score), threshold.value, anomalous, anomaly_map, regions, threshold.part, threshold.source
    )
