"""The good images of a training, part by part: training images, and images that set the threshold.

Each part has images of its own for its threshold, as if it were the only one. They are held out from the training, or
cross-fitted: `edgead.training.folds`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgead.data import Dataset, LoadedImages, drawing_order, hold_out, left_out_text, load_images
from edgead.data.images import image_hash
from edgead.data.stored_images import Images
from edgead.errors import DataError, InputError
from edgead.imaging.decode import dark_text
from edgead.imaging.frame import squeeze_text
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.cross_fitting import ENOUGH_IMAGES, FOLDS
from edgead.scoring.hold_out import AUTO, enough_images, hold_out_count
from edgead.scoring.threshold import images_needed, smallest_rate
from edgead.training.folds import NO_FOLD, Folds
from edgead.training.turned_parts import check_turned
from edgead.training.update import Division

_log = logging.getLogger(__name__)

WATCHED_TILES = 256
"""Largest number of tiles of a part whose loss a training watches."""

TRAINED_TILES = 4096
"""Approximate number of tiles of a part that the model is trained on; its images give equally many."""


@dataclass(frozen=True, slots=True)
class PartImages:
    """The good images of one part, at the model's size.

    Attributes:
        trained: Images to train on.
        held_out: Images that set the threshold: held out, or, with folds, cross-fitted.
        folds: Folds of both, if the images are cross-fitted.
    """

    trained: LoadedImages
    held_out: LoadedImages
    folds: Folds | None = None

    def names_held_out(self, root: Path) -> tuple[str, ...]:
        """Return the paths of the images that set the threshold.

        Args:
            root: Folder of the dataset.

        Returns:
            Paths relative to `root`, with `/` between their parts.
        """
        return tuple(sample.path.relative_to(root).as_posix() for sample in self.held_out.samples)

    @property
    def image_px(self) -> tuple[int, int] | None:
        """Height and width of all images; None if they differ."""
        same = self.folds is not None or self.trained.image_px == self.held_out.image_px
        return self.trained.image_px if same else None


def is_cross_fitted(dataset: Dataset, wanted: str, closed_form: bool) -> bool:
    """Return whether the images of a part are cross-fitted: nobody chose a hold-out, and the student trains in seconds.

    Images in tiles are not, because a fold of tiles is a fold of images.

    Args:
        dataset: The part's dataset.
        wanted: Number or share of its good images to hold out, or "auto".
        closed_form: Whether the student has a closed form.
    """
    return closed_form and wanted == AUTO and not dataset.validation and not dataset.train[0].view.is_tiled


def log_budget(
    dataset: Dataset,
    wanted: str,
    false_alarm_rate: float,
    crossed: bool = False,
    division: Division | None = None,
) -> int:
    """Log, before any work, how many images the false-alarm rate needs and what the good images support.

    Args:
        dataset: The part's dataset.
        wanted: Number or share of its good images to hold out, or "auto", see `edgead.scoring.hold_out`.
        false_alarm_rate: Largest share of good parts above the threshold.
        crossed: Whether the images are cross-fitted instead, see `is_cross_fitted`.
        division: Division of the images in an update.

    Returns:
        Number of images that set the threshold.

    Raises:
        DataError: The hold-out leaves no image to train on.
        InputError: The dataset sets validation images apart, which are held out, and another hold-out is wanted.
    """
    n, set_apart = len(dataset.train), len(dataset.validation)
    if set_apart and wanted != AUTO:
        raise InputError(
            f"{dataset.name} sets {set_apart} good images apart in validation/, and they are held out",
            hint="leave out --hold-out",
        )
    needed = images_needed(false_alarm_rate)
    if crossed:
        count = max(1, min(n, max(ENOUGH_IMAGES, needed)))
    elif division is not None:
        count = len(division.held_out)
    else:
        count = set_apart or hold_out_count(n, wanted, false_alarm_rate)
        if not set_apart and 2 <= n <= count:
            raise DataError(
                f"{dataset.name} has {n} good images, and {count} are to be held out",
                hint=f"give --hold-out {max(1, n // 3)} or fewer, or more images",
            )
    if count < needed:
        fixed = set_apart or crossed or division is not None
        enough = None if fixed else enough_images(wanted, false_alarm_rate)
        _log.info(
            "%s: %d %s images support a false-alarm rate of %.2g at confidence 0.95; %g needs %d%s: give more "
            "images, or set the threshold later on new images with edgead threshold --good",
            dataset.name,
            count,
            "cross-fitted" if crossed else "held-out",
            smallest_rate(count),
            false_alarm_rate,
            needed,
            "" if enough is None else f", from {enough} good images in all",
        )
    return count


def read_images(
    dataset: Dataset,
    size: ModelSize,
    seed: int,
    skip_broken: bool,
    count: int,
    crossed: bool = False,
    division: Division | None = None,
) -> PartImages:
    """Read the good images of one part.

    Args:
        dataset: The part's dataset.
        size: Image size of the model.
        seed: Seed of the choice of the images that set the threshold, and of the folds.
        skip_broken: Whether to skip and log image files that cannot be read.
        count: Number of images that set the threshold, if the dataset sets none apart.
        crossed: Whether these images are cross-fitted. Otherwise they are held out.
        division: Division of the images in an update, in place of a choice by the seed.

    Returns:
        The images, resized.

    Raises:
        DataError: There are too few images, or an image cannot be read.
    """
    n = len(dataset.train)
    # One image or none is refused by the split, with a better message.
    chosen, held_out = division or hold_out(dataset, count / n if 1 < n != count else 0.5, seed)
    if crossed:
        part = cross_fitted(load_images(dataset.train, size, skip_broken), count, seed)
        read: tuple[LoadedImages, ...] = (part.trained,)
    else:
        most = TRAINED_TILES if chosen[0].view.is_tiled else None
        part = PartImages(
            load_images(chosen, size, skip_broken, most), load_images(held_out, size, skip_broken)
        )
        read = (part.trained, part.held_out)
    for line in (line for images in read for line in images.broken):
        _log.warning("skipped: %s", line)
    folder = dataset.train[0].path.parent
    for images in read:
        check_turned(images, size)
    squeezed = max((*part.trained.framings, *part.held_out.framings), key=lambda framing: framing.squeeze)
    warnings = (
        left_out_text(dataset.left_out, folder),
        dark_text(np.array([images.brightest for images in read], np.uint8), f"the good images in {folder}"),
        squeeze_text(squeezed, f"the good images in {folder}"),
    )
    for warning in filter(None, warnings):
        _log.warning("%s", warning)
    _log.info(
        "%s (%s): %d good images to train on, %d %s for the threshold",
        dataset.name,
        dataset.layout,
        len(part.trained.samples),
        len(part.held_out.samples),
        "held out" if part.folds is None else "of them cross-fitted",
    )
    return part


def cross_fitted(loaded: LoadedImages, count: int, seed: int) -> PartImages:
    """Divide images into folds, so that all of them train the model and set the threshold.

    Images with the same pixels are in one fold, because a copy of an image in the training set would make its score too
    low. They count once for the threshold, as they do in `edgead threshold`.

    Args:
        loaded: Images of one part.
        count: Largest number of images that set the threshold.
        seed: Seed of the folds. They depend only on it and on the file names.

    Returns:
        The images with their folds.

    Raises:
        DataError: All images have the same pixels.
    """
    first: dict[str, int] = {}
    numbers = range(len(loaded.samples))
    copy_of = [first.setdefault(image_hash(loaded.rows(number)), number) for number in numbers]
    order = drawing_order(loaded.samples, seed)
    drawn = [number for number in order if copy_of[number] == number][:count]
    if len(drawn) < 2:
        raise DataError(
            f"the {len(copy_of)} good images in {loaded.samples[0].path.parent} have the same pixels",
            hint="put images of different parts there, better 100 or more",
        )
    folds = np.full(len(copy_of), NO_FOLD)
    folds[drawn] = np.arange(len(drawn)) % min(FOLDS, len(drawn))
    chosen = sorted(drawn)
    # Without a copy of all images. The broken files are counted with the training images.
    images = loaded.images if len(chosen) == len(copy_of) else loaded.images[chosen]
    framings = tuple(loaded.framings[number] for number in chosen) if loaded.framings else ()
    held_out = LoadedImages(images, tuple(loaded.samples[number] for number in chosen), (), framings)
    return PartImages(loaded, held_out, Folds(folds[copy_of], folds[chosen]))


def watched_rows(part: PartImages) -> Images:
    """Return the held-out images whose loss a training watches: all images, or tiles that are spread over them.

    Args:
        part: Images of a part.
    """
    images, count = part.held_out.images, len(part.held_out.images)
    if count == len(part.held_out.samples) or count <= WATCHED_TILES:
        return images
    return images[np.linspace(0, count - 1, WATCHED_TILES).astype(np.intp)]


def joined_folds(parts: Iterable[PartImages]) -> Folds | None:
    """Join the folds of all parts, part after part.

    Args:
        parts: Images of each part.

    Returns:
        The folds; None if no part is cross-fitted.
    """
    parts = list(parts)
    if all(part.folds is None for part in parts):
        return None
    folds = [
        part.folds or Folds.none(len(part.trained.samples), len(part.held_out.samples)) for part in parts
    ]
    return Folds(
        np.concatenate([each.trained for each in folds]), np.concatenate([each.held_out for each in folds])
    )
