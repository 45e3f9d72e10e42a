"""The model of a script: it takes image files or arrays and gives decisions. `edgead.load` opens one.

A session takes batches at the model's size and gives numbers. This class adds the steps around the session: reading and
resizing the images, the threshold of the part, the regions, and the map at the size of the image.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np

from edgead.bundle.directory import Bundle
from edgead.bundle.manifest import REBUILD
from edgead.bundle.part_names import choose_part
from edgead.bundle.threshold_changes import threshold_sources
from edgead.errors import BackendError, InputError
from edgead.imaging.decode import read_image
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import WHOLE, View
from edgead.runtime import open_session
from edgead.runtime.base import Session
from edgead.runtime.framed import BATCH
from edgead.runtime.results import (
    GIVEN,
    Outcome,
    ReadImage,
    Result,
    UsedThreshold,
    map_of_size,
    predict_batches,
    predict_image,
)
from edgead.scoring.decision import NOT_FINITE
from edgead.scoring.threshold import Threshold, check_value
from edgead.types import Closing, UInt8Array

Image: TypeAlias = "str | os.PathLike[str] | UInt8Array"


class Model(Closing):
    """An opened bundle or run; a context manager.

    Args:
        session: Session of the model, which `close` closes.
        size: Size of the images that the session takes.
        thresholds: Decision threshold of each part, by name; None for a part without one.
        description: Description of the model, in one line.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.
        threshold: Decision threshold to use instead of the thresholds of the parts; None to use theirs.
        bundle: Bundle of the model; None for a run.
        view: Part of an image that the model inspects, and the way to its size.

    Attributes:
        session: Session of the model, for batches at the model's size.
        size: Size of the images that the session takes.
        thresholds: Decision threshold of each part, by name; None for a part without one.
        description: Description of the model, in one line.
        bit_depth: Depth of the values of image files with samples of 16 bits; None for the depth of the files.
        view: Part of an image that the model inspects, and the way to its size.

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
        bundle: Bundle | None = None,
        view: View = WHOLE,
    ) -> None:
        self.session = session
        self.size = size
        self.thresholds = dict(thresholds)
        self.description = description
        self.bit_depth = bit_depth
        self.view = view
        self._threshold = None if threshold is None else check_value(threshold)
        self._sources = {} if bundle is None else threshold_sources(bundle.manifest)
        self._bundle = bundle
        self._closed = False

    @classmethod
    def of_bundle(cls, bundle: Bundle, threads: int | None = None, threshold: float | None = None) -> Model:
        """Open the model of a bundle.

        Args:
            bundle: Opened bundle.
            threads: Number of CPU threads of one inference; None for one for each core.
            threshold: Decision threshold to use instead of the thresholds of the parts; None to use theirs.

        Returns:
            The model, whose session gives the golden answers.

        Raises:
            EdgeadError: See `edgead.runtime.open_session`.
        """
        manifest = bundle.manifest
        description = f"{bundle.path} (bundle: {manifest.method}, {manifest.teacher}, {manifest.precision})"
        session = open_session(bundle, threads=threads)
        depth, view = manifest.bit_depth, manifest.view
        return cls(session, manifest.size, manifest.thresholds, description, depth, threshold, bundle, view)

    @property
    def bundle(self) -> Bundle | None:
        """The bundle of the model; None for a run."""
        return self._bundle

    def golden_images(self, part: str) -> UInt8Array:
        """Return the images of a part that the bundle keeps: good ones and synthetic defects.

        Args:
            part: Name of the part.

        Returns:
            (N, H, W, 3) uint8 RGB, at the model's size; N is 0 for a run.

        Raises:
            BundleError: The file with the images is missing or damaged.
        """
        if self._bundle is None:
            return np.empty((0, self.size.height_px, self.size.width_px, 3), np.uint8)
        golden = self._bundle.golden()
        # The last image is the chart.
        images: UInt8Array = golden.images[:-1][golden.part[:-1] == self.parts.index(part)]
        return images

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that the model serves."""
        return tuple(self.thresholds)

    def used_threshold(self, part: str | None, threshold: float | None = None) -> UsedThreshold:
        """Choose a part and its decision threshold.

        Args:
            part: Name of the part; None for the only part of the model.
            threshold: Decision threshold to use; None for the one that the model was opened with, or else the part's.

        Returns:
            The part, its threshold or the given one, and the source of the threshold.

        Raises:
            InputError: If the part is unknown or has no threshold, the model serves several parts and none is given, or
                a given threshold is not a finite number above 0.
        """
        chosen = choose_part(self.thresholds, None if part is None else str(part))
        given = self._threshold if threshold is None else check_value(threshold)
        if given is not None:
            return UsedThreshold(chosen, given, GIVEN)
        if (own := self.thresholds[chosen]) is None:
            raise InputError(
                f"the model has no threshold for {chosen}", hint="build a bundle of it with edgead.build"
            )
        return UsedThreshold(chosen, own.value, self._sources.get(chosen, "edgead train"))

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
        if not isinstance(image, list | tuple):
            used, read = self._used_threshold(part, threshold), partial(_image, image, self.bit_depth)
            outcome = predict_image(self.session, self.size, self.view, used, read)
            return _result(outcome, "the image", full_size)
        if not image:
            raise InputError("an empty list of images", hint="give 1 or more")
        reads = [partial(_image, one, self.bit_depth) for one in image]
        once = 1 if self.view.is_tiled else BATCH
        batches = [reads[start : start + once] for start in range(0, len(reads), once)]
        results: list[Result] = []
        for outcomes in self.predict_batches(batches, part=part, threshold=threshold):
            for outcome in outcomes:
                name = f"image {len(results) + 1} of {len(image)}"
                results.append(_result(outcome, name, full_size))
        return results

    def predict_batches(
        self,
        batches: Iterable[Sequence[ReadImage]],
        *,
        part: str | None = None,
        threshold: float | None = None,
    ) -> Generator[list[Outcome], None, None]:
        """Decide on the images of batches. While one batch is scored, the next ones are read in threads.

        Args:
            batches: Batches of functions that read the images.
            part: Name of the part on the images; needed if the model serves several.
            threshold: Decision threshold to use; by default the one of `edgead.load`, or else the part's.

        Returns:
            For each batch the outcomes of its images, in order; see `edgead.runtime.results.predict_batches`.

        Raises:
            InputError: If the part is unknown or has no threshold.
            BackendError: If the model is closed, or by the iteration, if its backend fails.
        """
        used = self._used_threshold(part, threshold)
        return predict_batches(self.session, self.size, self.view, used, batches)

    def _used_threshold(self, part: str | None, threshold: float | None) -> UsedThreshold:
        """Choose the threshold of a prediction; BackendError if the model is closed."""
        if self._closed:
            raise BackendError("the model is closed", hint="open it again with edgead.load")
        return self.used_threshold(part, threshold)

    def close(self) -> None:
        """Close the session; may be called twice."""
        self._closed = True
        self.session.close()


def _result(outcome: Outcome, name: str, full_size: bool) -> Result:
    """Return the result of an outcome; raise its error, or BackendError if its numbers are not finite."""
    if outcome.error is not None:
        raise outcome.error
    if outcome.result is None:
        raise BackendError(f"{name} gets no decision ({NOT_FINITE})", hint=REBUILD)
    if not full_size:
        return outcome.result
    full = map_of_size(outcome.result.anomaly_map, outcome.size_px)
    return replace(outcome.result, anomaly_map=full)


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
