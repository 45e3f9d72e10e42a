"""The good images of a training, part by part: those to train on, and those held out.

Every part holds out its own, as if it were alone, because each has a threshold of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgead.data import Dataset, LoadedImages, load_images, split_holdout
from edgead.imaging.preprocess import ModelSize
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)

HOLDOUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PartImages:
    """The good images of one part, at the model's size: those to train on, and those held out."""

    trained: LoadedImages
    held_out: LoadedImages

    def names_held_out(self, root: Path) -> tuple[str, ...]:
        """Paths of the images held out, relative to the dataset's folder."""
        return tuple(sample.path.relative_to(root).as_posix() for sample in self.held_out.samples)


def read_images(dataset: Dataset, size: ModelSize, seed: int, skip_broken: bool) -> PartImages:
    """Read the good images of one part.

    Args:
        dataset: The part's dataset.
        size: Size of the images that the model takes.
        seed: Chooses the images that are held out.
        skip_broken: Leave out images that cannot be read, and log them.

    Raises:
        DataError: If there are too few images, or one of them cannot be read.
    """
    chosen, held_out = split_holdout(dataset.train, HOLDOUT_SHARE, seed)
    images = load_images(chosen, size, skip_broken)
    holdout = load_images(held_out, size, skip_broken)
    for line in (*images.broken, *holdout.broken):
        _log.warning("skipped: %s", line)
    _log.info(
        "%s (%s): %d good images to train on, %d held out for the threshold",
        dataset.name,
        dataset.layout,
        len(images.samples),
        len(holdout.samples),
    )
    return PartImages(images, holdout)


def stacked(images: Iterable[UInt8Array]) -> Tensor:
    """Images of all parts, (N, H, W, 3) uint8, part after part; without a copy where there is one part."""
    parts = list(images)
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
