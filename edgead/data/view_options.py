"""The view that the options of a training describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgead.data.masks import read_ignore_mask
from edgead.errors import InputError
from edgead.imaging.preprocess import ModelSize
from edgead.imaging.view import OVERLAP_PX, View, read_roi

VIEW_OPTIONS = ("fit", "roi", "ignore", "tile", "overlap")


def view_of(given: dict[str, Any]) -> View:
    """Take the options of the view out of the options of a training. The size of tiles becomes the model's size.

    Args:
        given: Options by name. They lose those of the view, and get `size` if `tile` is given.

    Returns:
        The view.

    Raises:
        InputError: An option is out of range, or the options exclude each other.
        ImageError: The ignore mask cannot be read.
    """
    fit, roi, ignore, tile, overlap = (given.pop(name, None) for name in VIEW_OPTIONS)
    if tile is None and overlap is not None:
        raise InputError(f"overlap is {overlap} without tiles", hint="give --tile 256, for example")
    if tile is not None:
        if "size" in given:
            raise InputError(
                f"tile {tile} and size {given['size']} are given, but tiles are not resized",
                hint="leave out --size",
            )
        given["size"] = str(tile)
        overlap = OVERLAP_PX if overlap is None else overlap
        View(overlap=overlap).check_tiles(ModelSize.parse(given["size"]))
    mask = "" if ignore is None else read_ignore_mask(Path(ignore))
    return View(fit or "stretch", () if roi is None else read_roi(roi), mask, overlap)
