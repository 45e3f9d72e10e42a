"""The good images of a training, part by part: training images and held-out images.

Each part holds out images of its own, as if it were the only one, because each part has its own threshold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgead.data import Dataset, LoadedImages, hold_out, left_out_text, load_images
from edgead.errors import DataError, InputError
from edgead.imaging.decode import dark_text
from edgead.imaging.preprocess import ModelSize
from edgead.scoring.hold_out import AUTO, enough_images, hold_out_count
from edgead.scoring.threshold import images_needed, smallest_rate
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartImages:
    """The good images of one part, at the model's size.

    Attributes:
        trained: Images to train on.
        held_out: Images that are held out for the threshold.
    """

    trained: LoadedImages
    held_out: LoadedImages

    def names_held_out(self, root: Path) -> tuple[str, ...]:
        """Return the paths of the held-out images.

        Args:
            root: Folder of the dataset.

        Returns:
            Paths relative to `root`, with `/` between their parts.
        """
        return tuple(sample.path.relative_to(root).as_posix() for sample in self.held_out.samples)


def log_budget(dataset: Dataset, wanted: str, false_alarm_rate: float) -> int:
    """Log, before any work, how many held-out images the false-alarm rate needs and what the hold-out supports.

    Args:
        dataset: The part's dataset.
        wanted: Number or share of its good images to hold out, or "auto", see `edgead.scoring.hold_out`.
        false_alarm_rate: Largest share of good parts above the threshold.

    Returns:
        Number of images that are held out.

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
    count, needed = set_apart or hold_out_count(n, wanted, false_alarm_rate), images_needed(false_alarm_rate)
    if not set_apart and 2 <= n <= count:
        raise DataError(
            f"{dataset.name} has {n} good images, and {count} are to be held out",
            hint=f"give --hold-out {max(1, n // 3)} or fewer, or more images",
        )
    if count < needed:
        enough = None if set_apart else enough_images(wanted, false_alarm_rate)
        _log.info(
            "%s: %d held-out images support a false-alarm rate of %.2g at confidence 0.95; %g needs %d%s: give more "
            "images, or set the threshold later on new images with edgead threshold --good",
            dataset.name,
            count,
            smallest_rate(count),
            false_alarm_rate,
            needed,
            "" if enough is None else f", from {enough} good images in all",
        )
    return count


def read_images(dataset: Dataset, size: ModelSize, seed: int, skip_broken: bool, count: int) -> PartImages:
    """Read the good images of one part.

    Args:
        dataset: The part's dataset.
        size: Image size of the model.
        seed: Seed of the choice of held-out images.
        skip_broken: Whether to skip and log image files that cannot be read.
        count: Number of images to hold out, if the dataset sets none apart.

    Returns:
        The images, resized.

    Raises:
        DataError: There are too few images, or an image cannot be read.
    """
    n = len(dataset.train)
    # One image or none is refused by the split, with a better message.
    chosen, held_out = hold_out(dataset, count / n if n > 1 else 0.5, seed)
    images = load_images(chosen, size, skip_broken)
    holdout = load_images(held_out, size, skip_broken)
    for line in (*images.broken, *holdout.broken):
        _log.warning("skipped: %s", line)
    folder = dataset.train[0].path.parent
    both = np.array([images.images.max(), holdout.images.max()], np.uint8)
    warnings = (left_out_text(dataset.left_out, folder), dark_text(both, f"the good images in {folder}"))
    for warning in filter(None, warnings):
        _log.warning("%s", warning)
    _log.info(
        "%s (%s): %d good images to train on, %d held out for the threshold",
        dataset.name,
        dataset.layout,
        len(images.samples),
        len(holdout.samples),
    )
    return PartImages(images, holdout)


def stacked(images: Iterable[UInt8Array]) -> Tensor:
    """Join the images of all parts; a single part is not copied.

    Args:
        images: Images of each part, (N_k, H, W, 3) uint8.

    Returns:
        (N, H, W, 3) uint8, part after part.
    """
    parts = list(images)
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
