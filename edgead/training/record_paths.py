"""The paths in the record of a run: their text in run.json, and the check that they stay inside the dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgead.files.parsing import RecordError

if TYPE_CHECKING:
    from edgead.training.records import RunRecord


def with_paths(record: RunRecord, convert: Callable[[str], str]) -> RunRecord:
    """Convert the paths of a record.

    Args:
        record: Record of a run.
        convert: `path_text` to write JSON, or `path_from_text` to read it.

    Returns:
        The record with the other paths.
    """
    config, parts = record.config, record.parts
    return replace(
        record,
        config=replace(
            config,
            data=tuple(map(convert, config.data)),
            base=convert(config.base),
            textures=convert(config.textures),
            teacher_weights=convert(config.teacher_weights),
        ),
        parts={
            name: replace(
                part,
                holdout=tuple(map(convert, part.holdout)),
                files={convert(file): found for file, found in part.files.items()},
            )
            for name, part in parts.items()
        },
    )


def check_holdout(part: str, holdout: Sequence[str]) -> None:
    """Check the held-out images of a part.

    Args:
        part: Name of the part.
        holdout: Paths of the images, relative to the dataset.

    Raises:
        RecordError: There is no image, or an image lies outside the dataset.
    """
    if not holdout:
        raise RecordError(f"part {part!r} has no images held out")
    for name in holdout:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise RecordError(f"image {name[:80]!r} is outside the dataset")
