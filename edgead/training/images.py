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
from edgead.imaging.decode import dark_text
from edgead.imaging.preprocess import ModelSize
from edgead.types import UInt8Array

_log = logging.getLogger(__name__)

HOLDOUT_SHARE = 0.1


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


def read_images(dataset: Dataset, size: ModelSize, seed: int, skip_broken: bool) -> PartImages:
    """Read the good images of one part.

    Args:
        dataset: The part's dataset.
        size: Image size of the model.
        seed: Seed of the choice of held-out images.
        skip_broken: Whether to skip and log image files that cannot be read.

    Returns:
        The images, resized.

    Raises:
        DataError: There are too few images, or an image cannot be read.
    """
    chosen, held_out = hold_out(dataset, HOLDOUT_SHARE, seed)
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
