"""The EXIF orientation, for every format that has one, read by Pillow."""

from __future__ import annotations

from edgead.imaging.formats.pillow_warnings import warnings_as_errors

_ORIENTATION = 274


def orientation_from_exif(data: bytes) -> int:
    """Read the orientation from EXIF data.

    Args:
        data: EXIF data, with or without the prefix `Exif`.

    Returns:
        Orientation from 1 to 8; 1 if the data has none or is damaged, because the pixels do not depend on the rest.
    """
    from PIL import Image

    exif = Image.Exif()
    try:
        with warnings_as_errors():
            exif.load(data)
            # Pillow parses the value here, and warns of a wrong one.
            return known_orientation(exif.get(_ORIENTATION))
    except Exception:  # Pillow raises many types, and no pixel depends on them.
        return 1


def known_orientation(value: object) -> int:
    """Return an orientation, or 1 if the value is none.

    Args:
        value: Value of the tag.

    Returns:
        Orientation from 1 to 8.
    """
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
