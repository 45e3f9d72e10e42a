"""Names of the parts that one model inspects.

A model may be trained on several parts at once. Their scores lie at different levels, so each part has its own
threshold, and a prediction needs the name of the part. A part's name is the name of its image folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgead.errors import InputError
from edgead.text import path_text, printable

MAX_PARTS = 32
"""Largest number of parts of one model. It limits the size of a bundle, which holds golden images of each part."""

# Longest name of a folder in common file systems.
_MAX_NAME = 255


def check_part_names(names: Sequence[str]) -> None:
    """Check the names of a model's parts.

    Args:
        names: Names of the parts, equal to the names of their folders.

    Raises:
        InputError: There is no name, there are more than `MAX_PARTS`, a name is given twice, or a name is empty, too
            long or not printable.
    """
    if not 1 <= len(names) <= MAX_PARTS:
        raise InputError(f"{len(names)} parts in one model", hint=f"give 1 to {MAX_PARTS}")
    for name in names:
        # Names are printed to terminals and written into lines of a log.
        if not name or len(name) > _MAX_NAME or printable(name) != name:
            raise InputError(f"{name[:80]!r} is no name of a part", hint="rename the folder")
        if names.count(name) > 1:
            raise InputError(f"two datasets are named {name}", hint="rename one of the folders")


def choose_part(known: Iterable[str], asked: str | None, dataset: str | None = None) -> str:
    """Choose one of a model's parts.

    The part is the one that the user asked for, or the model's only part, or the part with the name of the dataset.

    Args:
        known: Names of the model's parts.
        asked: Name that the user gave; None if the user gave none.
        dataset: Name of the dataset; None if there is none.

    Returns:
        Name of the part.

    Raises:
        InputError: The model does not have the part, or several parts are possible. The message names the parts.
    """
    names = list(known)
    if asked is None and len(names) == 1:
        return names[0]
    # A name that the shell typed as the folder has it is written as `folder_name` of it.
    meant = dataset if asked is None else asked if asked in names else printable(path_text(asked))
    if meant is None or meant not in names:
        said = "the model knows several parts" if asked is None else f"the model knows no part {asked[:80]!r}"
        raise InputError(said, hint=f"give --part {' or '.join(names)}")
    return meant
