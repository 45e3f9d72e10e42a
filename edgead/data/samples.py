"""Datasets and their samples, and the hold-out of good samples.

A sample is a path with its labels; `edgead.data.images` reads the pixels. The hold-out takes good images only. Early
stopping and the threshold use only held-out images, and never a test image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgead.errors import DataError, InputError
from edgead.imaging.view import WHOLE, View

GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset.

    Attributes:
        path: Image file.
        label: 0 for good, 1 for defective, None for unknown.
        defect: Kind of defect, "good" for a good part.
        mask_path: Mask of the same view, an image file, or a folder of several that are merged. None if there is none.
        bit_depth: Depth of the values of a file with samples of 16 bits; see `edgead.imaging.decode.read_image`.
        view: Part of the image that the model inspects, and the way to its size.
    """

    path: Path
    label: int | None
    defect: str = GOOD
    mask_path: Path | None = None
    bit_depth: int | None = None
    view: View = WHOLE


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one kind of part.

    Attributes:
        name: Name of the dataset, from its folder.
        layout: Layout of the folder, one of `edgead.data.LAYOUTS`.
        train: Training samples, good ones only.
        test: Test samples, good and defective ones; may be empty.
        left_out: Number of files beside the images that are not read, by suffix.
        validation: Good samples that the dataset sets apart from training and test; may be empty.
    """

    name: str
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    validation: tuple[Sample, ...] = ()

    def read_as(self, bit_depth: int | None, view: View = WHOLE) -> Dataset:
        """Return the dataset with another depth and view of its images.

        Args:
            bit_depth: Depth of the values of files with samples of 16 bits; None for the depth of the files.
            view: Part of the images that the model inspects, and the way to its size.
        """
        train, test, validation = (
            tuple(replace(sample, bit_depth=bit_depth, view=view) for sample in samples)
            for samples in (self.train, self.test, self.validation)
        )
        return replace(self, train=train, test=test, validation=validation)


def spread_over(parts: Sequence[Sequence[Sample]], count: int) -> list[Sample]:
    """Choose about `count` samples: an equal share from each part, evenly spaced over the part's samples.

    If a part has fewer samples than its share, all are returned. Each part gives at least one.

    Args:
        parts: Samples of each part, in order.
        count: Number of samples wanted from all parts together.

    Returns:
        The chosen samples, part by part.
    """
    share = max(1, count // len(parts))
    return [sample for samples in parts for sample in samples[:: max(1, -(-len(samples) // share))]]


def hold_out(
    dataset: Dataset, fraction: float = 0.1, seed: int = 0
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split the good samples of a dataset into training and held-out ones.

    Args:
        dataset: The dataset.
        fraction: Fraction of the training samples to hold out; see `split_holdout`.
        seed: Seed of the choice.

    Returns:
        The training samples, and the validation samples of the dataset, or, if it has none, a part of the others.

    Raises:
        DataError: There are too few samples.
        InputError: `fraction` is not between 0 and 1.
    """
    if dataset.validation:
        return dataset.train, dataset.validation
    return split_holdout(dataset.train, fraction, seed)


def split_holdout(
    samples: Sequence[Sample], fraction: float = 0.1, seed: int = 0
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split samples into training and held-out ones, at least one each.

    The choice depends only on `seed` and the file names. It is the same on every machine, wherever the dataset is
    stored. An image that is added later changes the side of few others.

    Args:
        samples: Samples to split.
        fraction: Fraction of the samples to hold out, between 0 and 1.
        seed: Seed of the choice.

    Returns:
        The training samples and the held-out samples, both in the order given.

    Raises:
        DataError: There are fewer than two samples.
        InputError: `fraction` is not between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(
            f"hold-out fraction {fraction} is not between 0 and 1", hint="give 0.1 to hold out a tenth"
        )
    if not samples:
        raise DataError("no good image to train on", hint="give at least 2, better 100 or more")
    if len(samples) < 2:
        raise DataError(
            f"{samples[0].path.parent} holds one good image, and one is held out for the threshold",
            hint="put at least 2 there, better 100 or more",
        )
    count = min(max(1, round(fraction * len(samples))), len(samples) - 1)

    drawn = frozenset(drawing_order(samples, seed)[:count])
    train = tuple(sample for index, sample in enumerate(samples) if index not in drawn)
    holdout = tuple(sample for index, sample in enumerate(samples) if index in drawn)
    return train, holdout


def drawing_order(samples: Sequence[Sample], seed: int) -> list[int]:
    """Return the numbers of samples in a random order.

    The order of two samples depends only on `seed` and their file names.

    Args:
        samples: Samples.
        seed: Seed of the order.
    """

    def lot(index: int) -> tuple[bytes, int]:
        return hashlib.sha256(os.fsencode(f"{seed}/{samples[index].path.name}")).digest(), index

    return sorted(range(len(samples)), key=lot)
