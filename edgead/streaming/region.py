"""The region of a camera: the part of its images that the stream sees.

It is cut out before everything else, so the checks of an image, the view of the bundle, the sinks and the marks of
viewers have this part alone, with coordinates from its corner. So marked images fit the bundle as they are.
"""

from __future__ import annotations

import re
from dataclasses import replace

from edgead.errors import ImageError, InputError
from edgead.imaging.framing import Box
from edgead.types import Frame


def read_region(text: str) -> Box:
    """Read a region ``x,y,width,height`` in pixels from the upper left corner of the image.

    Args:
        text: Region.

    Raises:
        InputError: The text is no region, or it has no area.
    """
    found = re.fullmatch(",".join([r"([0-9]{1,7})"] * 4), text)
    box = Box(*map(int, found.groups())) if found is not None else None
    if box is None or not box.width or not box.height:
        raise InputError(
            f"roi {text[:80]!r} is no region of a camera",
            hint="give x,y,width,height in pixels, such as 100,50,640,480",
        )
    return box


def cut_region(frame: Frame, region: Box) -> Frame:
    """Cut the region out of a frame.

    Args:
        frame: Frame of the camera.
        region: Region in its image.

    Returns:
        The frame with the region as its image, in memory of its own.

    Raises:
        ImageError: The region is not inside of the image.
    """
    height_px, width_px = frame.image.shape[:2]
    if region.x + region.width > width_px or region.y + region.height > height_px:
        raise ImageError(
            f"roi {','.join(map(str, region))} is outside of the image of {width_px}x{height_px} pixels",
            hint="give another roi, or set the camera back",
        )
    # A part of the image would keep all of its memory.
    return replace(frame, image=frame.image[region.at].copy())
