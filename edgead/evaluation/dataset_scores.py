"""Score a dataset with any session.

The code knows the `Session` protocol only. So a trained run, a bundle and an engine are measured by the same code on
the same pixels. Images are read and scored batch by batch, and pixels are counted at once, so that the memory does not
grow with the number of images, except for their reduced maps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from edgead.data import Sample, cut_sample, read_sample
from edgead.errors import DataError, ImageError
from edgead.evaluation.pixels import count_pixels, missing_masks, reduced, reduction
from edgead.files.progress import ScoringState, log_state
from edgead.imaging.decode import dark_text
from edgead.imaging.frame import squeeze_text
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.runtime.base import Session
from edgead.runtime.framed import infer_images
from edgead.runtime.read_ahead import read_ahead
from edgead.scoring.pixel_histogram import PixelHistogram
from edgead.types import BoolArray, Float32Array, UInt8Array

_log = logging.getLogger(__name__)

Maps: TypeAlias = "Float32Array | list[Float32Array]"


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores and maps of N images.

    Attributes:
        samples: The N images that could be read.
        scores: Anomaly scores, float32 (N,).
        maps: Anomaly maps, float32 (N, H, W), or N maps of several sizes. If all maps together are larger than
            `edgead.evaluation.pixels.MAPS_BYTES`, they are reduced by the largest of neighbouring values.
        broken: One line for each skipped file.
        framings: Framing of each image; empty if the maps are stretched over the images.
        pixels: Counts of the pixels of all maps before they were reduced; None to count those of `maps`.
    """

    samples: tuple[Sample, ...]
    scores: Float32Array
    maps: Maps
    broken: tuple[str, ...] = ()
    framings: tuple[Framing, ...] = ()
    pixels: PixelHistogram | None = None

    def framing(self, index: int) -> Framing | None:
        """Return the framing of an image; None if its map is stretched over it.

        Args:
            index: Index of the image.
        """
        return self.framings[index] if self.framings else None


def score_dataset(
    session: Session,
    samples: Sequence[Sample],
    size: ModelSize,
    skip_broken: bool = False,
    batch_size: int = 8,
) -> Scores:
    """Read images at the model's size and score them, batch by batch, so that the memory holds few of them.

    The state is logged after every batch.

    Args:
        session: Opened model.
        samples: Images to score.
        size: Image size of the model.
        skip_broken: Whether to skip and count image files that cannot be read.
        batch_size: Images in a batch.

    Returns:
        Scores and maps in the order of the samples.

    Raises:
        DataError: If there is no sample, or none can be read.
        ImageError: If a file cannot be read and `skip_broken` is False.
        BackendError: If the model cannot score the images.
    """
    if not samples:
        raise DataError(
            "no images to score, because the dataset's test folder is empty or missing",
            hint="give a dataset with test images, such as test/good and test/DEFECT",
        )
    collected = _Collected(len(samples), missing_masks(samples) is None)
    once = 1 if samples[0].view.is_tiled else batch_size
    batches = [samples[start : start + once] for start in range(0, len(samples), once)]
    reads = ([partial(_read, sample, size) for sample in batch] for batch in batches)
    done = 0
    with closing(read_ahead(reads)) as loaded:
        for batch, images in zip(batches, loaded, strict=True):
            collected.add(session, batch, images, skip_broken)
            done += len(batch)
            log_state(_log, ScoringState(done, len(samples)))
    return collected.scores()


class _Collected:
    """Scores, reduced maps and counts of pixels of the images so far.

    Args:
        total: Number of all images.
        with_masks: Whether all defects have masks.
    """

    def __init__(self, total: int, with_masks: bool) -> None:
        self._total, self._pixels = total, PixelHistogram() if with_masks else None
        self._samples: list[Sample] = []
        self._framings: list[Framing] = []
        self._scores: list[np.float32] = []
        self._maps: list[Float32Array] = []
        # Memory of all maps, if they have the shape of the first one, so that it never holds them twice.
        self._block: Float32Array | None = None
        self._broken: list[str] = []
        self._brightest = 0

    def add(
        self,
        session: Session,
        batch: Sequence[Sample],
        images: Sequence[_Image | ImageError],
        skip_broken: bool,
    ) -> None:
        """Score a batch, or raise the error of its first image that cannot be read."""
        readable: list[tuple[Sample, _Image]] = []
        for sample, image in zip(batch, images, strict=True):
            if not isinstance(image, ImageError):
                readable.append((sample, image))
            elif skip_broken:
                self._broken.append(str(image))
            else:
                raise ImageError(
                    image.what, hint=f"{image.hint}, or skip such files with --skip-broken"
                ) from image
        scored = infer_images(session, [(image.framing, image.rows) for _, image in readable])
        for (sample, image), (score, joined) in zip(readable, scored, strict=True):
            if self._pixels is not None:
                count_pixels(self._pixels, sample, joined, image.framing)
            self._brightest = max(self._brightest, image.brightest)
            self._samples.append(sample)
            self._framings.append(image.framing)
            self._scores.append(score)
            self._keep(reduced(joined, reduction(self._total, joined.shape)))

    def _keep(self, anomaly_map: Float32Array) -> None:
        """Copy a map to its place in the block of all maps; keep it as it is if its shape differs."""
        if self._block is None:
            self._block = np.empty((self._total, *anomaly_map.shape), np.float32)
        if anomaly_map.shape == self._block.shape[1:]:
            place: Float32Array = self._block[len(self._maps)]
            place[...] = anomaly_map
            anomaly_map = place
        self._maps.append(anomaly_map)

    def scores(self) -> Scores:
        """Return the scores of all images; DataError if there are none."""
        if not self._samples:
            raise DataError(
                f"none of {self._total} images can be read, the first: {self._broken[0]}",
                hint="check the folder",
            )
        name, squeezed = "the images to score", max(self._framings, key=lambda framing: framing.squeeze)
        for line in (dark_text(np.array(self._brightest, np.uint8), name), squeeze_text(squeezed, name)):
            if line is not None:
                _log.warning("%s", line)
        assert self._block is not None
        one_shape = len({anomaly_map.shape for anomaly_map in self._maps}) == 1
        return Scores(
            tuple(self._samples),
            np.array(self._scores, np.float32),
            self._block[: len(self._maps)] if one_shape else self._maps,
            tuple(self._broken),
            tuple(self._framings),
            self._pixels,
        )


class _Image(NamedTuple):
    """Framing, rows and largest value of an image."""

    framing: Framing
    rows: UInt8Array
    brightest: int


def _read(sample: Sample, size: ModelSize) -> _Image | ImageError:
    """Read an image, or return its error."""
    try:
        image = read_sample(sample)
        framing, rows = cut_sample(sample, image, size)
    except ImageError as error:
        return error
    return _Image(framing, rows, int(image[framing.source.at].max()))


def finite_scores(scores: Scores) -> BoolArray:
    """Find the images with numbers that a decision may rest on, (N,) bool.

    Args:
        scores: Scores and maps.
    """
    finite = [bool(np.isfinite(anomaly_map).all()) for anomaly_map in scores.maps]
    return np.isfinite(scores.scores) & np.array(finite, np.bool_)


def pixels_of(scores: Scores) -> tuple[PixelHistogram | None, str]:
    """Count the pixels of the maps.

    Args:
        scores: Scores and maps of a dataset.

    Returns:
        The counts and an empty text; or None and the reason why there are no pixel metrics.

    Raises:
        ImageError: A mask cannot be read.
    """
    labelled = [s for s in scores.samples if s.label is not None]
    if (reason := missing_masks(labelled)) is not None:
        return None, reason
    pixels = scores.pixels
    if pixels is None:
        pixels = PixelHistogram()
        for index, sample in enumerate(scores.samples):
            count_pixels(pixels, sample, scores.maps[index], scores.framing(index))
    if not pixels.defect or not pixels.good:
        return None, "the masks mark no pixel" if not pixels.defect else "the masks mark every pixel"
    return pixels, ""
