"""The first directory of a TIFF or BigTIFF file: the tags that describe its image."""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass

from edgead.imaging.formats.pixels import DamagedImageError

ORIENTATION = 274

# Letters of struct for BYTE, SHORT, LONG, UNDEFINED and LONG8. No tag that is read has another type.
_LETTERS = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}

# More strips or tiles than an image of a size that edgead reads has; a directory could list millions.
_MAX_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class Directory:
    """Tags of an image.

    Attributes:
        order: Byte order of 16-bit values, `<` or `>`.
        tags: Values by tag.
    """

    order: str
    tags: dict[int, tuple[int, ...]]


def read_directory(data: bytes, wanted: Container[int]) -> Directory:
    """Read the first directory.

    Args:
        data: Content of a TIFF or BigTIFF file.
        wanted: Tags to read.

    Returns:
        The tags of `wanted` that are there.

    Raises:
        DamagedImageError: The header or the directory is cut short, a tag is there twice, or its values lie outside
            the file.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise DamagedImageError("its header is no TIFF header")
    try:
        return Directory(order, _tags(data, order, wanted))
    except (struct.error, OverflowError) as error:
        raise DamagedImageError("its TIFF directory is cut short or damaged") from error


def _tags(data: bytes, order: str, wanted: Container[int]) -> dict[int, tuple[int, ...]]:
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 43:
        word, (place,) = "Q", struct.unpack_from(order + "Q", data, 8)
        (count,), place = struct.unpack_from(order + "Q", data, place), place + 8
    else:
        word, (place,) = "I", struct.unpack_from(order + "I", data, 4)
        (count,), place = struct.unpack_from(order + "H", data, place), place + 2
    inline = struct.calcsize("=" + word)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(place, place + count * (4 + 2 * inline), 4 + 2 * inline):
        tag, kind, length = struct.unpack_from(f"{order}HH{word}", data, entry)
        if tag not in wanted or kind not in _LETTERS:
            continue
        if tag in tags:
            raise DamagedImageError(f"its TIFF directory has tag {tag} twice")
        start, letter = entry + 4 + inline, _LETTERS[kind]
        if length > _MAX_VALUES:
            raise DamagedImageError(f"its TIFF tag {tag} has {length} values")
        layout = f"{order}{length}{letter}"
        # Values that do not fit into the entry are stored at an offset.
        if struct.calcsize(layout) > inline:
            (start,) = struct.unpack_from(order + word, data, start)
        tags[tag] = struct.unpack_from(layout, data, start)
    return tags
