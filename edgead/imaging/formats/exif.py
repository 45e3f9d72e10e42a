"""The EXIF orientation, for every format that has one."""

from __future__ import annotations

from edgead.imaging.formats.pixels import DamagedImageError
from edgead.imaging.formats.tiff_directory import ORIENTATION, read_directory


def orientation_from_exif(data: bytes) -> int:
    """Read the orientation from EXIF data, which has the structure of a TIFF file.

    Args:
        data: EXIF data, with or without the prefix `Exif`.

    Returns:
        Orientation from 1 to 8; 1 if the data has none or is damaged, because the pixels do not depend on the rest.
    """
    try:
        tags = read_directory(data.removeprefix(b"Exif\0\0"), (ORIENTATION,)).tags
    except DamagedImageError:
        return 1
    return known_orientation(tags)


def known_orientation(tags: dict[int, tuple[int, ...]]) -> int:
    """Return the orientation among the tags of a directory.

    Args:
        tags: Values by tag.

    Returns:
        Orientation from 1 to 8; 1 if there is none, or if it has another value.
    """
    value = tags.get(ORIENTATION, (1,))[:1]
    return value[0] if value and 1 <= value[0] <= 8 else 1
