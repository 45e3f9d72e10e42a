"""The pixels of samples: images at the model's size, through the view of their samples.

A broken file is never skipped silently. By default it raises an error that names the file; with `skip_broken` it is
skipped and reported. Images of more than `KEPT_BYTES` are not kept in memory, but read again from their files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice

import numpy as np
import numpy.typing as npt

from edgead.data.samples import Sample
from edgead.data.stored_images import Images, Source, StoredImages, cut_sample, read_sample
from edgead.errors import DataError, ImageError
from edgead.files.memory import free_host_bytes
from edgead.imaging.framing import Framing
from edgead.imaging.preprocess import ModelSize
from edgead.types import UInt8Array

KEPT_BYTES = 2**30
"""Largest size of the images of a part that are kept in memory; less if a fourth of the free memory is less."""

_SPREAD = 0.6180339887498949
_READ_AT_ONCE = 16


@dataclass(frozen=True)
class LoadedImages:
    """Images at the model's size. An image has one row, or a row for each of its tiles.

    Attributes:
        images: Rows, (R, H, W, 3) uint8 RGB: an array, or an object that reads them again.
        samples: Samples of the images, N of them in the same order.
        broken: One line for each file that was skipped.
        framings: Framing of each sample; empty if each has one row, of which all is inspected.
        brightest: Largest value of all images before they were resized; None if it is not known.
        image_px: Height and width of all images before they were resized; None if they differ or are not known.
    """

    images: Images
    samples: tuple[Sample, ...]
    broken: tuple[str, ...]
    framings: tuple[Framing, ...] = ()
    brightest: int | None = None
    image_px: tuple[int, int] | None = None

    def framing(self, number: int) -> Framing | None:
        """Return the framing of an image; None if it has one row, of which all is inspected.

        Args:
            number: Number of the image, from 0 to N - 1.
        """
        return self.framings[number] if self.framings else None

    def rows(self, number: int) -> UInt8Array:
        """Return the rows of an image, (count, H, W, 3) uint8 RGB.

        Args:
            number: Number of the image, from 0 to N - 1.
        """
        if not self.framings:
            return np.asarray(self.images[number : number + 1])
        return np.asarray(self.images[self._ends[number] : self._ends[number + 1]])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate((framing.count for framing in self.framings), initial=0))


def load_images(
    samples: Sequence[Sample], size: ModelSize, skip_broken: bool = False, most_tiles: int | None = None
) -> LoadedImages:
    """Read all images of `samples`, and bring them to the model's size through their view.

    Args:
        samples: Samples to read.
        size: Size of the images that the model takes.
        skip_broken: Skip files that cannot be read, and report them in `LoadedImages.broken`.
        most_tiles: Approximate number of tiles of all images together; None for all tiles. The tiles of an image are
            spread over it, and differ from image to image. The result then has no framings.

    Returns:
        The images, in the order of `samples`.

    Raises:
        ImageError: A file cannot be read, and `skip_broken` is False; or the view does not fit an image.
        DataError: No image is left.
    """
    limit = min(KEPT_BYTES, free_host_bytes() // 4)
    sources: list[Source] = []
    broken: list[str] = []
    kept: list[UInt8Array] | None = []
    brightest = kept_bytes = 0
    for sample, found in zip(samples, _read_all(samples, size), strict=True):
        if isinstance(found, ImageError):
            if not skip_broken:
                raise ImageError(
                    found.what, hint=f"{found.hint}, or skip such files with --skip-broken"
                ) from found
            broken.append(str(found))
            continue
        framing, rows, value = found
        chosen = _chosen(framing.count, len(sources), len(samples), most_tiles)
        sources.append(Source(sample, framing, chosen))
        brightest = max(brightest, value)
        kept_bytes += len(chosen) * rows[0].nbytes
        if kept_bytes > limit:
            kept = None
        elif kept is not None:
            kept.append(rows if len(chosen) == len(rows) else rows[chosen])
    if not sources:
        first = f", the first: {broken[0]}" if broken else ""
        raise DataError(f"none of {len(samples)} images can be read{first}", hint="check the folder")
    framings = tuple(source.framing for source in sources) if most_tiles is None else ()
    images: Images = StoredImages(sources) if kept is None else _joined(kept)
    shapes = {source.framing.image_px for source in sources}
    return LoadedImages(
        images,
        tuple(source.sample for source in sources),
        tuple(broken),
        framings,
        brightest,
        shapes.pop() if len(shapes) == 1 else None,
    )


def image_hash(image: UInt8Array) -> str:
    """Compute the ID by which a bundle knows a held-out image.

    Args:
        image: Image at the model's size, (H, W, 3) uint8 RGB, or its tiles, (N, H, W, 3).

    Returns:
        The first 128 bits of the SHA-256 of the pixels, in hex.
    """
    return hashlib.sha256(image.tobytes()).hexdigest()[:32]


def _read_all(
    samples: Sequence[Sample], size: ModelSize
) -> Iterator[tuple[Framing, UInt8Array, int] | ImageError]:
    """Read images in threads: framing, rows and largest value of each, or its error."""

    def read(sample: Sample) -> tuple[Framing, UInt8Array, int] | ImageError:
        try:
            image = read_sample(sample)
        except ImageError as error:
            return error
        framing, rows = cut_sample(sample, image, size)
        return framing, rows, int(image[framing.source.at].max())

    rest = iter(samples)
    # A few at a time, because images of a large camera would fill the memory.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "edgead-load") as pool:
        while some := list(islice(rest, _READ_AT_ONCE)):
            yield from pool.map(read, some)


def _joined(kept: list[UInt8Array]) -> UInt8Array:
    """Join arrays; each is released once it is copied, so that the memory holds little twice."""
    images = np.empty((sum(map(len, kept)), *kept[0].shape[1:]), np.uint8)
    end = len(images)
    while kept:
        rows = kept.pop()
        images[end - len(rows) : end] = rows
        end -= len(rows)
    return images


def _chosen(count: int, number: int, images: int, most: int | None) -> npt.NDArray[np.intp]:
    """Return the numbers of the tiles of an image, spread over it from another one on for each image."""
    wanted = count if most is None else min(count, max(1, most // images))
    start = int(number * _SPREAD % 1.0 * count)
    return np.sort((start + np.arange(wanted) * count // wanted) % count)
