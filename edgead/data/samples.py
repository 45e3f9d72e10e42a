"""What a dataset is: samples, good ones to train on, and a few of those held out.

A sample is a path and what is known of it; pixels are read when they are asked for. The hold-out takes good
images only: the early stop and the threshold come from them, and no test image is ever looked at for
either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgead.errors import DataError, InputError

GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset.

    label: 0 good, 1 defect, None unknown. defect: the kind of defect, "good" where there is none. mask_path:
    an image of the same view whose pixels above zero are the defect; None where there is none.
    """

    path: Path
    label: int | None
    defect: str = GOOD
    mask_path: Path | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of one kind of part. train: good ones only. test: good ones and defects, or nothing."""

    name: str
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def spread_over(parts: Sequence[Sequence[Sample]], count: int) -> list[Sample]:
    """About `count` samples, as many of one part as of another, evenly spread over those of each.

    parts: the samples of each, in order. Of a part that has fewer than its share, all; of each one at least.
    """
    share = max(1, count // len(parts))
    return [sample for samples in parts for sample in samples[:: max(1, -(-len(samples) // share))]]


def split_holdout(
    samples: Sequence[Sample], fraction: float = 0.1, seed: int = 0
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split samples into (train, holdout), each in the order given, at least one in each.

    The choice hangs on `seed` and the file names alone: it is the same on every machine wherever the dataset
    lies, and an image added later moves few of the others. Raises DataError for fewer than two samples,
    InputError for a fraction that is not between 0 and 1.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"hold-out fraction {fraction} is not between 0 and 1: give 0.1 to hold out a tenth")
    if len(samples) < 2:
        raise DataError(
            f"{samples[0].path.parent} holds one good image, and one is held out for the threshold: "
            "put at least 2 there, better 100 or more"
            if samples
            else "no good image to train on: give at least 2, better 100 or more"
        )
    count = min(max(1, round(fraction * len(samples))), len(samples) - 1)

    def lot(index: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}/{samples[index].path.name}".encode()).digest(), index

    drawn = frozenset(sorted(range(len(samples)), key=lot)[:count])
    train = tuple(sample for index, sample in enumerate(samples) if index not in drawn)
    holdout = tuple(sample for index, sample in enumerate(samples) if index in drawn)
    return train, holdout
