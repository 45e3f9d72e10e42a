"""The view of a model: the part of an image that it inspects, and the way from there to the model's size.

A run and its bundle record one view, and training, build, evaluation, prediction and stream all look through it.
`edgead.imaging.framing` applies it to images of one size.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np

from edgead.errors import ImageError, InputError
from edgead.imaging.decode import image_from_bytes
from edgead.imaging.preprocess import ModelSize
from edgead.types import BoolArray

Fit = Literal["stretch", "pad", "crop", "turn"]
FITS: tuple[Fit, ...] = get_args(Fit)

OVERLAP_PX = 32
"""Default overlap of tiles."""

MAX_POINTS = 100
MAX_IGNORE_CHARACTERS = 2**18
_MAX_PX = 2**20


@dataclass(frozen=True, slots=True)
class View:
    """The part of an image that a model inspects, and the way to the model's size.

    Attributes:
        fit: Way to the model's size: "stretch" both sides, "pad" the shorter one, "crop" the longer one, or "turn" the
            parts: each part on a plain ground is turned along the x axis, into the middle.
        roi: Region of interest: corners (x, y) of a polygon, in pixels from the upper left corner of the image; empty
            for the whole image.
        ignore: Pixels of the image that are ignored: content of a PNG file in base64, not black where ignored; empty
            for none. The images must have its size.
        overlap: Smallest overlap of the tiles of the model's size into which images are cut, in pixels; None to fit
            the whole image to the model's size.

    Raises:
        InputError: A value is out of range, or the options exclude each other.
    """

    fit: Fit = "stretch"
    roi: tuple[tuple[int, int], ...] = ()
    ignore: str = ""
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise InputError(f"fit is {self.fit!r:.40}", hint=f"give --fit {' or '.join(FITS)}")
        if self.overlap is not None and self.fit != "stretch":
            raise InputError(f"fit is {self.fit}, but tiles are not resized", hint="leave out --fit")
        if self.fit == "turn" and (self.ignore or (self.roi and not self.is_rectangle)):
            raise InputError(
                "fit is turn, but an ignore mask or a polygon does not turn with the parts",
                hint="leave out --ignore, and give --roi x,y,width,height",
            )
        if self.roi:
            _check_polygon(self.roi)
        if len(self.ignore) > MAX_IGNORE_CHARACTERS:
            raise InputError(
                f"the ignore mask has {len(self.ignore)} bytes as PNG, more than {MAX_IGNORE_CHARACTERS}",
                hint="draw it with smoother edges",
            )

    def __str__(self) -> str:
        corners = " ".join(f"{x},{y}" for x, y in self.roi)
        return " ".join(
            [
                f"--fit {self.fit}",
                *([f"--roi '{corners}'"] if corners else []),
                *(["--ignore (a mask)"] if self.ignore else []),
                *([] if self.overlap is None else [f"in tiles with --overlap {self.overlap}"]),
            ]
        )

    @property
    def is_rectangle(self) -> bool:
        """Whether the region of interest is the box around it."""
        if len(self.roi) != 4:
            return False
        (left, top), (right, bottom) = np.min(self.roi, axis=0).tolist(), np.max(self.roi, axis=0).tolist()
        return set(self.roi) == {(left, top), (right, top), (right, bottom), (left, bottom)}

    @property
    def is_tiled(self) -> bool:
        """Whether images are cut into tiles."""
        return self.overlap is not None

    def check_tiles(self, size: ModelSize) -> None:
        """Check that tiles of a size overlap by half of their shorter side at most.

        Args:
            size: Size of the tiles. Other views pass.

        Raises:
            InputError: The overlap is out of range.
        """
        most = min(size.height_px, size.width_px) // 2
        if self.overlap is not None and not 0 <= self.overlap <= most:
            raise InputError(f"overlap is {self.overlap}", hint=f"give --overlap 0 to {most}, half of a tile")

    def ignored(self) -> BoolArray | None:
        """Return the ignored pixels of an image, (H, W) bool; None if there is no mask.

        Raises:
            InputError: The mask is no image.
        """
        return _decoded(self.ignore) if self.ignore else None


WHOLE = View()
"""View of the whole image, stretched."""


def read_roi(text: str) -> tuple[tuple[int, int], ...]:
    """Read a region of interest from text.

    Args:
        text: `x,y,width,height`, or three or more corners `x,y` of a polygon with spaces between; in pixels.

    Returns:
        Corners of the polygon.

    Raises:
        InputError: The text is neither.
    """
    words = text.split()
    count = 4 if len(words) == 1 else 2
    numbers = [re.fullmatch(",".join([r"([0-9]{1,7})"] * count), word) for word in words]
    values = [tuple(int(number) for number in match.groups()) for match in numbers if match is not None]
    if not words or len(values) != len(words):
        raise InputError(
            f"region of interest {text[:80]!r} is neither x,y,width,height nor corners",
            hint="give --roi 100,50,640,480, or --roi '100,50 740,50 420,530'",
        )
    if len(words) > 1:
        return tuple((x, y) for x, y in values)
    ((x, y, width, height),) = values
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def ignore_text(mask: BoolArray) -> str:
    """Return the text of `View.ignore`.

    Args:
        mask: Ignored pixels, (H, W) bool.
    """
    _, data = cv2.imencode(
        ".png",
        mask.astype(np.uint8) * np.uint8(255),
        [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9],
    )
    return base64.b64encode(data.tobytes()).decode("ascii")


@lru_cache(maxsize=8)
def _decoded(text: str) -> BoolArray:
    """Decode `View.ignore`."""
    try:
        image = image_from_bytes(base64.b64decode(text, validate=True), "the ignore mask")
    except (binascii.Error, ImageError) as error:
        raise InputError("the ignore mask is no PNG file in base64", hint="train again") from error
    mask: BoolArray = image[..., 0] > 0
    mask.setflags(write=False)
    return mask


def _check_polygon(points: tuple[tuple[int, int], ...]) -> None:
    """Raise InputError unless the points are a polygon with an area."""
    if not 3 <= len(points) <= MAX_POINTS or not all(
        0 <= value <= _MAX_PX for point in points for value in point
    ):
        raise InputError(
            f"the region of interest has {len(points)} corners, or one out of range",
            hint=f"give 3 to {MAX_POINTS} corners inside of the image",
        )
    if cv2.contourArea(np.array(points, np.float32)) < 1.0:
        raise InputError("the region of interest has no area", hint="give --roi x,y,width,height")
