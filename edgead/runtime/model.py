"""The model of a script: it takes image files or arrays and gives decisions. `edgead.load` opens one.

A session takes batches at the model's size and gives numbers. This class adds the steps around the session: reading and
resizing the images, the threshold of the part, the regions, and the map at the size of the image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import cv2
import numpy as np

from edgead.bundle.manifest import REBUILD
from edgead.bundle.part_names import choose_part
from edgead.errors import BackendError, InputError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize, batch_from_images
from edgead.imaging.regions import regions_from_map
from edgead.runtime.base import Session
from edgead.scoring.decision import NOT_FINITE, decide
from edgead.scoring.threshold import Threshold, check_value
from edgead.types import Closing, Float32Array, Region, UInt8Array, share_of_threshold

Image: TypeAlias = "str | os.PathLike[str] | UInt8Array"

BATCH = 8
"""Number of images of a list that are read and scored at once."""


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
    """

    anomaly_score: float
    threshold: float
    is_anomalous: bool
    anomaly_map: Float32Array
    regions: tuple[Region, ...]
    part: str

    @property
    def share_of_threshold(self) -> float | None:
        """The score divided by the threshold: above 1 is anomalous; None if the threshold is not above 0."""
        return share_of_threshold(self.anomaly_score, self.threshold)


class Model(Closing):
    """An opened bundle or run; a context manager.

    Args:
        session: Session of the model, which `close` closes.
        size: Size of the images that the session takes.
        thresholds: Decision threshold of each part, by name; None for a part without one.
        description: Description of the model, in one line.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.
        threshold: Decision threshold to use instead of those of the parts; None for those of the parts.

    Attributes:
        session: Session of the model, for batches at the model's size.
        size: Size of the images that the session takes.
        thresholds: Decision threshold of each part, by name; None for a part without one.
        description: Description of the model, in one line.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.

    Example:
        >>> import edgead
        >>> with edgead.load("engines/my-parts") as model:
        ...     result = model.predict("part.png")
        >>> result.is_anomalous == (result.anomaly_score > result.threshold)
        True
    """

    def __init__(
        self,
        session: Session,
        size: ModelSize,
        thresholds: Mapping[str, Threshold | None],
        description: str,
        bit_depth: int | None = None,
        threshold: float | None = None,
    ) -> None:
        self.session = session
        self.size = size
        self.thresholds = dict(thresholds)
        self.description = description
        self.bit_depth = bit_depth
        self._threshold = None if threshold is None else check_value(threshold)
        self._closed = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that the model serves."""
        return tuple(self.thresholds)

    def part_and_threshold(self, part: str | None, threshold: float | None = None) -> tuple[str, float]:
        """Choose a part and return its decision threshold.

        Args:
            part: Name of the part; None for the only part of the model.
            threshold: Decision threshold to use; None for the one that the model was opened with, or else the part's.

        Returns:
            Name of the part, and its threshold or the given one.

        Raises:
            InputError: If the part is unknown or has no threshold, the model serves several parts and none is given, or
                a given threshold is not a finite number above 0.
        """
        chosen = choose_part(self.thresholds, None if part is None else str(part))
        given = self._threshold if threshold is None else check_value(threshold)
        if given is not None:
            return chosen, given
        if (own := self.thresholds[chosen]) is None:
            raise InputError(
                f"the model has no threshold for {chosen}", hint="build a bundle of it with edgead.build"
            )
        return chosen, own.value

    @overload
    def predict(
        self,
        image: Image,
        *,
        part: str | None = None,
        full_size: bool = False,
        threshold: float | None = None,
    ) -> Result: ...

    @overload
    def predict(
        self, image: list[Image] | list[str] | list[Path] | list[UInt8Array] | tuple[Image, ...],
        *, part: str | None = None, full_size: bool = False, threshold: float | None = None,
    ) -> list[Result]: ...  # fmt: skip

    def predict(
        self,
        image: Image | list[Image] | list[str] | list[Path] | list[UInt8Array] | tuple[Image, ...],
        *,
        part: str | None = None,
        full_size: bool = False,
        threshold: float | None = None,
    ) -> Result | list[Result]:
        """Decide on one image, or on each of a list.

        Args:
            image: Path of an image file, (H, W, 3) uint8 RGB array of any size, or a list of either. A list is scored
                in batches.
            part: Name of the part on the images; needed if the model serves several.
            full_size: Whether `anomaly_map` is resized bilinearly to the size of the image.
            threshold: Decision threshold to use; by default the one of `edgead.load`, or else the part's.

        Returns:
            One result, or a list of results in the order of the images.

        Raises:
            InputError: If an argument has another type or shape, the list is empty, or the part is unknown.
            ImageError: If an image file cannot be read.
            BackendError: If the model is closed, its backend fails, or the map or the score of an image is not finite,
                because then there is no decision.

        Example:
            >>> import edgead
            >>> with edgead.load("engines/my-parts") as model:
            ...     results = model.predict(["part.png", "part.png"], full_size=True)
            >>> len(results)
            2
        """
        if self._closed:
            raise BackendError("the model is closed", hint="open it again with edgead.load")
        chosen, used = self.part_and_threshold(part, threshold)
        images = image if isinstance(image, list | tuple) else [image]
        if not images:
            raise InputError("an empty list of images", hint="give 1 or more")
        results: list[Result] = []
        for start in range(0, len(images), BATCH):
            loaded = [_image(one, self.bit_depth) for one in images[start : start + BATCH]]
            prediction = self.session.infer(batch_from_images(loaded, self.size))
            for index, array in enumerate(loaded):
                score, of_image = float(prediction.anomaly_score[index]), prediction.anomaly_map[index, 0]
                anomalous = decide(of_image, score, used)
                if anomalous is None:
                    name = f"image {start + index + 1} of {len(images)}"
                    raise BackendError(f"{name} gets no decision ({NOT_FINITE})", hint=REBUILD)
                shape = array.shape[:2]
                regions = regions_from_map(of_image, used, *shape) if anomalous else ()
                if full_size and of_image.shape != shape:
                    of_image = cv2.resize(of_image, shape[::-1], interpolation=cv2.INTER_LINEAR)
                results.append(Result(score, used, anomalous, of_image, regions, chosen))
        return results if isinstance(image, list | tuple) else results[0]

    def close(self) -> None:
        """Close the session; may be called twice."""
        self._closed = True
        self.session.close()


def _image(image: Image, bit_depth: int | None) -> UInt8Array:
    """Read an image file, or check an array."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), bit_depth)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image of type {type(image).__name__}",
            hint="give a path, or a NumPy array (H, W, 3) uint8 RGB",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"an image of shape {image.shape} and type {image.dtype}", hint="give (H, W, 3) uint8 RGB"
        )
    return image
