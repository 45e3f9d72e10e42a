"""The kinds of part that one model serves, by name.

A model may be trained on several parts at once. Their scores lie at different levels, so each has a threshold of its
own, and whoever asks for a verdict says of which part. A part is called as the folder of its images is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgead.errors import InputError

MAX_PARTS = 32
"""In one model: a bundle carries an image of each, and its synthetic defect, with the answers expected for them."""

# What a file system allows a folder.
_MAX_NAME = 255


def check_part_names(names: Sequence[str]) -> None:
    """Refuse names that no model can tell its parts apart by, InputError: none, too many, one twice, not printable."""
    if not 1 <= len(names) <= MAX_PARTS:
        raise InputError(f"{len(names)} parts in one model: give 1 to {MAX_PARTS}")
    for name in names:
        # Names go to terminals and into lines of a log.
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise InputError(f"{name[:80]!r} is no name of a part: rename the folder")
        if names.count(name) > 1:
            raise InputError(f"two datasets are named {name}: rename one of the folders")


def choose_part(known: Iterable[str], asked: str | None, dataset: str | None = None) -> str:
    """The part that is meant: the one asked for, the only one there is, or the one that is called as the dataset.

    known: names of the model's parts. asked: what the user gave, None for nothing. dataset: name of the images at
    hand. Raises InputError, which names the parts, for one that is not known and where the choice is open.
    """
    names = list(known)
    if asked is None and len(names) == 1:
        return names[0]
    meant = dataset if asked is None else asked
    if meant is None or meant not in names:
        said = "the model knows several parts" if asked is None else f"the model knows no part {asked[:80]!r}"
        raise InputError(f"{said}: give --part {' or '.join(names)}")
    return meant
