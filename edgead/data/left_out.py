"""Files beside the images that edgead does not read, counted by suffix, so that no image is missed in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgead.imaging.decode import IMAGE_FORMATS, IMAGE_SUFFIXES


def count_left_out(folders: Iterable[Path]) -> dict[str, int]:
    """Count the files that are no images by their suffix, in these folders but not below them.

    Args:
        folders: Folders. A folder that cannot be read has no files here.

    Returns:
        Number of files by suffix in lower case, the most frequent first. Hidden files are not counted, and neither is
        the record of an image: a JSON file with the name of the image.
    """
    counts: Counter[str] = Counter()
    for folder in sorted(set(folders)):
        try:
            files = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()]
        except OSError:
            continue
        images = {path.stem for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
        counts.update(
            suffix
            for path in files
            if (suffix := path.suffix.lower()) not in IMAGE_SUFFIXES
            and not (suffix == ".json" and path.stem in images)
        )
    return dict(counts.most_common())


def left_out_text(counts: Mapping[str, int], folder: Path | str) -> str | None:
    """Describe the files that were left out, in one line.

    Args:
        counts: Number of files by suffix.
        folder: Folder of the files.

    Returns:
        The line; None if there are no such files.
    """
    if not counts:
        return None
    return f"left out in {folder}: {counts_text(counts)}; images are {IMAGE_FORMATS} files"


def counts_text(counts: Mapping[str, int]) -> str:
    """Describe numbers of files.

    Args:
        counts: Number of files by suffix.

    Returns:
        Text such as "2 .heic, 1 without a suffix".
    """
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.items())
