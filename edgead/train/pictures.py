"""The good pictures of a training, part by part: those to train on, and those held out.

Every part holds out its own, as if it were alone, because each has a threshold of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgead.data import LoadedPictures, load_pictures, open_dataset, split_holdout
from edgead.preprocess import ModelSize
from edgead.train.config import TrainConfig
from edgead.types import UInt8Array

HOLDOUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PartPictures:
    """The good pictures of one part, at the model's size: those to train on, and those held out."""

    trained: LoadedPictures
    held_out: LoadedPictures

    def names_held_out(self, root: Path) -> tuple[str, ...]:
        """Paths of the pictures held out, relative to the dataset's folder."""
        return tuple(sample.path.relative_to(root).as_posix() for sample in self.held_out.samples)


def read_pictures(root: Path, config: TrainConfig, say: Callable[[str], None]) -> PartPictures:
    """Read the good pictures of one part.

    root: its dataset. say: takes a line for the user. Raises what `open_dataset`, `split_holdout` and `load_pictures`
    raise.
    """
    dataset = open_dataset(root, config.layout)
    size = ModelSize.parse(config.size)
    chosen, held_out = split_holdout(dataset.train, HOLDOUT_SHARE, config.seed)
    pictures = load_pictures(chosen, size, config.skip_broken)
    holdout = load_pictures(held_out, size, config.skip_broken)
    for line in (*pictures.broken, *holdout.broken):
        say(f"skipped: {line}")
    say(
        f"{dataset.name} ({dataset.layout}): {len(pictures.samples)} good pictures to train on, "
        f"{len(holdout.samples)} held out for the threshold"
    )
    return PartPictures(pictures, holdout)


def stacked(images: Iterable[UInt8Array]) -> Tensor:
    """Pictures of all parts, (N, H, W, 3) uint8, part after part; without a copy where there is one part."""
    parts = list(images)
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
