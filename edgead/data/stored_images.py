"""Images that are read from their files whenever they are needed, for sets that the memory does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgead.data.samples import Sample
from edgead.errors import DataError, ImageError
from edgead.imaging.decode import read_image
from edgead.imaging.frame import cut_image
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.types import UInt8Array


@dataclass(frozen=True, slots=True)
class Source:
    """One image file and its tiles.

    Attributes:
        sample: Sample of the image.
        framing: Its framing.
        tiles: Numbers of the tiles that count, rising.
    """

    sample: Sample
    framing: Framing
    tiles: npt.NDArray[np.intp]


class StoredImages:
    """Rows at the model's size in image files. They are indexed like an array along its first axis.

    Args:
        sources: Images, in the order of the rows, at least one.

    Attributes:
        shape: Shape of the array: (R, H, W, 3).
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        counts = [len(source.tiles) for source in self._sources]
        self._source_of = np.repeat(np.arange(len(counts)), counts)
        self._tile_of = np.concatenate([source.tiles for source in self._sources])
        size = self._sources[0].framing.size
        self.shape: tuple[int, ...] = (len(self._source_of), size.height_px, size.width_px, 3)
        self._last: tuple[int, UInt8Array] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> UInt8Array:
        """Read rows.

        Args:
            key: A number for (H, W, 3); a slice, or an array or tensor of numbers for (N, H, W, 3).

        Returns:
            uint8 RGB.

        Raises:
            ImageError: A file can no longer be read.
            DataError: A file has changed since the rows were counted.
        """
        numbers = np.arange(len(self))[key if isinstance(key, int | slice) else np.asarray(key)]
        if numbers.ndim == 0:
            return self._row(int(numbers))
        rows = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        # In the order of the files, so that a file with several tiles is read once.
        for at in np.argsort(numbers, kind="stable").tolist():
            rows[at] = self._row(int(numbers[at]))
        return rows

    def _row(self, number: int) -> UInt8Array:
        source = int(self._source_of[number])
        if self._last is None or self._last[0] != source:
            of = self._sources[source]
            framing, tiles = cut_sample(of.sample, read_sample(of.sample), of.framing.size)
            if framing.count != of.framing.count:
                raise DataError(
                    f"{of.sample.path} has another size than before", hint="leave the images as they are"
                )
            self._last = source, tiles
        row: UInt8Array = self._last[1][self._tile_of[number]]
        return row


class JoinedImages:
    """Rows of several sets of images, one after another. They are indexed like an array along its first axis.

    Args:
        parts: Sets of images of one size, at least one.

    Attributes:
        shape: Shape of the array: (R, H, W, 3).
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *self._parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> UInt8Array:
        """Read rows, see `StoredImages`."""
        numbers = np.arange(len(self))[key if isinstance(key, int | slice) else np.asarray(key)]
        wanted = np.atleast_1d(numbers)
        rows = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        of_part = np.searchsorted(self._starts, wanted, side="right") - 1
        for part in np.unique(of_part).tolist():
            here = of_part == part
            rows[here] = self._parts[part][wanted[here] - self._starts[part]]
        return rows[0] if numbers.ndim == 0 else rows


Images: TypeAlias = "UInt8Array | StoredImages | JoinedImages"
"""Rows at the model's size, (R, H, W, 3) uint8 RGB: `len`, `shape`, and numbers, slices or arrays of numbers in []."""


def joined(parts: Sequence[Images]) -> Images:
    """Join sets of images; a single set is returned as it is.

    Args:
        parts: Sets of images of one size, at least one.
    """
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays) if len(arrays) == len(parts) else JoinedImages(parts)


def read_sample(sample: Sample) -> UInt8Array:
    """Read the image of a sample.

    Args:
        sample: Sample to read.

    Returns:
        Image, (H, W, 3) uint8 RGB.

    Raises:
        ImageError: The file cannot be read.
    """
    return read_image(sample.path, sample.bit_depth)


def cut_sample(sample: Sample, image: UInt8Array, size: ModelSize) -> tuple[Framing, UInt8Array]:
    """Bring the image of a sample to the model's size through the view of the sample.

    Args:
        sample: The sample.
        image: Its image, (H, W, 3) uint8 RGB.
        size: Size of the images that the model takes.

    Returns:
        The framing, and the tiles (count, height, width, 3) uint8 RGB.

    Raises:
        ImageError: The view does not fit the image; the message names the file.
    """
    try:
        return cut_image(image, sample.view, size)
    except ImageError as error:
        raise ImageError(f"{error.what} ({sample.path})", hint=error.hint) from error
